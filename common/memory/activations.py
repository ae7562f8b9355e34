"""What the forward pass keeps for the backward pass, and what both take for a moment. Bytes on one device.

Counted on transformers' Llama in bf16 with attention that never holds its scores (flash or another fused
kernel), tensor by tensor; torch's FSDP2 memory tracker finds the same within a percent or two.
"""

from __future__ import annotations

from common.memory.job import FP32, Job, shapes

# The last norm: its input, its fp32 copy, the normalized one and what the head multiplies
LAST_NORM_ELEMENTS, LAST_NORM_FP32 = 3, 1


def tokens(job: Job) -> int:
    """Tokens of a micro-batch on one device."""
    return job.micro_batch_size * -(-job.length // job.sequence_parallel)


def layer(job: Job) -> int:
    """All that one decoder layer keeps of one micro-batch where it is not computed again.

    Per token, in elements: both norms keep an fp32 copy of their input, unless one kernel computes them.
    Trained matrices keep their inputs; frozen ones keep nothing, but LoRA beside them does. The MLP keeps
    gate, up and silu(gate).
    """
    model, fused = job.model, job.framework.fused_norms
    hidden, ffn = model.hidden_size, model.intermediate_size
    queries, keys = model.num_attention_heads * model.head_dim, model.num_key_value_heads * model.head_dim
    attention = 2 * queries + 2 * keys  # rotated queries and keys, values, the result
    shared = attention + 3 * ffn  # over tensor-parallel ranks
    whole = hidden  # the sum between attention and MLP
    masks = masks_shared = 0  # a byte an element
    if not job.lora:
        whole += 2 * hidden if fused else 4 * hidden  # what both norms give; without scaling, too, if not fused
        shared += queries + ffn  # the inputs of o_proj and down_proj
    else:
        inputs = {name: shape[1] for name, shape in shapes(model).items() if name in job.lora_targets}
        columns = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")  # these share one input
        rows = ("o_proj", "down_proj")
        if job.lora_dropout:  # each has its own mask and its own masked input
            masks = sum(inputs.get(name, 0) for group in columns for name in group)
            masks_shared = sum(inputs.get(name, 0) for name in rows)
            whole, shared = whole + masks, shared + masks_shared
        else:
            whole += sum(hidden for group in columns if any(name in inputs for name in group))
            shared += sum(inputs.get(name, 0) for name in rows)
    norms = 0 if fused else 2 * FP32 * hidden
    split = job.weights_bytes * shared + masks_shared
    per_token = norms + job.weights_bytes * whole + masks + split / job.tensor_parallel
    return round(tokens(job) * per_token)


def layer_gradients(job: Job) -> int:
    """Gradients of activations that exist at once within one layer's backward pass.

    Those of the MLP's three inner tensors, of the layer's output and the sum before the MLP, and of the norm
    between them, in fp32.
    """
    hidden, ffn = job.model.hidden_size, job.model.intermediate_size
    split = 3 * job.weights_bytes * ffn / job.tensor_parallel
    return round(tokens(job) * (split + 2 * job.weights_bytes * hidden + FP32 * hidden))


def checkpoint(job: Job) -> int:
    """The input of a layer that is computed again, of one micro-batch."""
    return tokens(job) * job.model.hidden_size * job.weights_bytes


def kept(job: Job, stage: int, layers: int) -> int:
    """What the `layers` of a pipeline stage keep of all micro-batches in flight."""
    again = job.recomputed(stage, layers)
    one = again * checkpoint(job) + (layers - again) * layer(job)
    return one * job.in_flight(stage)


def loss(job: Job) -> int:
    """Logits, their gradients, and what the last norm keeps. On the last pipeline stage."""
    at_once = min(tokens(job), job.framework.loss_chunk or tokens(job))
    logits = at_once * job.framework.logit_bytes * job.model.vocab_size // job.tensor_parallel
    norm = LAST_NORM_ELEMENTS * job.weights_bytes + LAST_NORM_FP32 * FP32
    return logits + tokens(job) * job.model.hidden_size * norm
