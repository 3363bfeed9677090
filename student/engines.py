"""Which engine runs a student's inner loops, and why."""

from peft.tuners.lora import Linear, LoraLayer

from protocol.errors import InvalidInput
from student.base import ADAPTER, FrozenBase
from student.cohort import Cohort
from student.inner_loop import Engine
from student.single import Single


def choose_engine(base: FrozenBase) -> tuple[Engine, str]:
    """The engine that `student.inner_loop` asks for, and the reason in words.

    Raises:
        InvalidInput: A cohort is asked for, and cannot be had.
        TutelageError: A cohort of this model does not train as it should.
    """
    wanted = base.settings.inner_loop
    if wanted == "single":
        return Single(base), "single: student.inner_loop asks for it"
    obstacle = obstacle_to_cohort(base)
    if obstacle is None:
        try:
            asked = "student.inner_loop asks for it" if wanted == "cohort" else "all adapters are plain LoRA on linear layers"
            return Cohort(base), f"cohort: {asked}"
        except NotImplementedError as error:
            obstacle = str(error)
    if wanted == "cohort":
        raise InvalidInput(f"student.inner_loop is 'cohort', but {obstacle}; set it to 'single', or to 'auto'")
    return Single(base), f"single: {obstacle}"


def obstacle_to_cohort(base: FrozenBase) -> str | None:
    """What a cohort could not hold or route, if anything."""
    settings, model = base.settings, base.model.get_base_model()
    config = model.config.get_text_config()
    if settings.deepspeed is not None:
        return "student.deepspeed is for one at a time"
    if settings.seal_compat:
        return "student.seal_compat pads every sequence"
    if settings.dropout or any("drop" in key and isinstance(rate, float) and rate > 0 for key, rate in config.to_dict().items()):
        return "with dropout an adapter would depend on its companions"
    if (
        model._is_stateful
        or not model._can_set_attn_implementation()
        or not {"full_attention", "sliding_attention"} >= set(getattr(config, "layer_types", None) or ())
    ):
        return f"the attention of {config.model_type} does not take packed sequences"
    for name, layer in base.model.named_modules():
        if isinstance(layer, LoraLayer):
            kind = type(layer).__name__
            if type(layer) is not Linear or ADAPTER in layer.lora_variant or layer.lora_bias[ADAPTER]:
                return f"the adapter of {name} is not plain LoRA on a linear layer ({kind})"
            if model.get_output_embeddings() in (layer, layer.get_base_layer()):
                return f"{name} is the output layer, which sees labelled tokens only"
            if ".experts." in name:
                return f"{name} is an expert, which sees some tokens only"
    return None
