"""The model and its masked-LM head: thin classes of transformers over our Transformer.

The weights lie in that, under its own names; a folder has those of its layout (`illada.transformers.loading`). A head
that is tied is no parameter of its own, so there is nothing that a version of the library could tie wrongly.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.generation.configuration_utils import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModel, AutoModelForMaskedLM

from illada.checkpoint.huggingface.reader import open_published
from illada.data.tokenizer import Tokenizer
from illada.model.layers import Block
from illada.model.transformer import Transformer, initialize
from illada.pipeline import LanguageModel
from illada.transformers.configuration import DreamConfig, IlladaConfig, LayoutConfig, LladaConfig
from illada.transformers.generation import generate
from illada.transformers.loading import (
    check_options,
    device_of,
    dtype_of,
    find_folder,
    read_into,
    write_folder,
)

ModelT = TypeVar("ModelT", bound="DiffusionModel")

_WHAT_DID_NOT_FIT = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


class DiffusionModel(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped to mypy
    """What the model without a head and the one with a head have in common."""

    config_class = LayoutConfig
    base_model_prefix = "transformer"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    gradient_checkpointing = False
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _no_split_modules: ClassVar[list[str]] = ["Block"]

    def __init__(self, config: LayoutConfig) -> None:
        """A model with weights drawn from torch's global generator, on the device and in the dtype that are set.

        Raises:
            ValueError: the configuration lacks a key or asks for what is not supported.
        """
        super().__init__(config)
        self.transformer = Transformer(config.model_config())
        if self.device.type != "meta":
            initialize(self.transformer, seed=int(torch.randint(2**31, ()).cpu()))
        self.folder: Path | None = None
        self.post_init()

    @classmethod
    def from_pretrained(
        cls: type[ModelT], pretrained_model_name_or_path: str | Path, *_: Any, **options: Any
    ) -> ModelT | tuple[ModelT, dict[str, list[str]]]:
        """The model of a published folder, or of an id on the hub, in evaluation mode.

        With `output_loading_info`, a pair of it and of the lists of what did not fit: empty, as that is an error.

        Args:
            pretrained_model_name_or_path: the folder or the id.
            options: `config`, `revision`, `dtype` (None and auto: that of the folder), `device_map` (one device), and
                keys of config.json, with which one may be set that the folder does not give, such as rope_theta.

        Raises:
            FileNotFoundError: there is no such model.
            ValueError: it is damaged or not supported, or an argument has no effect here.
        """
        folder = find_folder(pretrained_model_name_or_path, options.pop("revision", None))
        config = options.pop("config", None) or cls.config_class.from_pretrained(folder)
        for key in [key for key in cls.config_class.layout.keys.values() if key in options]:
            setattr(config, key, options.pop(key))
        dtype = dtype_of(options.pop("dtype", None) or options.pop("torch_dtype", None), folder)
        device = device_of(options.pop("device_map", None))
        informed = options.pop("output_loading_info", False)
        if options.pop("attn_implementation", None) not in (None, "sdpa"):
            raise ValueError("attention is computed by torch's own kernels: leave attn_implementation out")
        check_options({name: value for name, value in options.items() if name != "torch_dtype"})
        with torch.device("meta"):
            model = cls(config)
        read_into(model.transformer, folder, config.layout, device=device, dtype=dtype)
        model.folder, model.hf_device_map = folder, {"": device}
        config.dtype = dtype
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        model.eval()
        return (model, {name: [] for name in _WHAT_DID_NOT_FIT}) if informed else model

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        max_shard_size: int | str = "5GB",
        **options: Any,
    ) -> None:
        """Write configuration and weights in the layout of the configuration; the tokenizer saves itself.

        Raises:
            ValueError: an argument has no effect here.
            OSError: the disk is full, for one.
        """
        if not options.pop("safe_serialization", True) or options.pop("push_to_hub", False):
            raise ValueError("weights are written as safetensors, and to the hub by push_to_hub(): leave the flag out")
        check_options(
            {name: value for name, value in options.items() if name not in ("save_peft_format", "save_function")}
        )
        if not is_main_process:
            return
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.state_dict() if state_dict is None else state_dict
        own = {name.rpartition("transformer.")[2]: tensor for name, tensor in tensors.items()}
        write_folder(folder, own, self.config.layout, max_shard_size=max_shard_size)
        self.config.architectures = [self.config.layout.architecture]
        self.config.dtype = next(iter(own.values())).dtype
        self.config.save_pretrained(folder)
        if getattr(self, "generation_config", None) is not None:
            self.generation_config.save_pretrained(folder)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As every module's; names may be those of the layout, as they are in a folder."""
        layout = self.config.layout
        ours = {layout.published_name(name): f"transformer.{name}" for name, _ in self.transformer.named_parameters()}
        named = {ours.get(name, name): value for name, value in state_dict.items()}
        return super().load_state_dict(named, strict, assign)

    def get_input_embeddings(self) -> nn.Embedding:
        """The embedding."""
        return self.transformer.embedding

    def get_output_embeddings(self) -> nn.Module | None:
        """The head, where it is a matrix of its own."""
        return self.transformer.head

    def resize_token_embeddings(self, *_: Any, **__: Any) -> nn.Embedding:
        """There are as many rows as the model was made with.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"a vocabulary of {self.transformer.config.vocab_size} rows cannot be resized here")

    def tie_weights(self, *_: Any, **__: Any) -> None:
        """A tied head is no parameter: what the library would tie by a flag of its own is a head that is not."""

    def _hidden(self, input_ids: Tensor, attention_mask: Tensor | None, options: Mapping[str, Any]) -> Tensor:
        given = sorted(name for name, value in options.items() if value is not None and value is not False)
        if given == ["token_type_ids"] and not bool(options["token_type_ids"].any()):
            given = []  # some tokenizers give them: all 0
        if given:
            raise ValueError(f"the model does not take {', '.join(given)}")
        hidden: Tensor = self.transformer(input_ids, segments_of(attention_mask))
        return hidden

    def _init_weights(self, module: nn.Module) -> None:
        """The weights have been filled where the model was made."""

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, every_n_layers: int = 1
    ) -> None:
        """Let blocks compute their activations once more in the backward pass, or keep them again."""
        self.gradient_checkpointing = enable
        for number, block in enumerate(self.transformer.blocks):
            block.__dict__.pop("forward", None)
            if enable and number % every_n_layers == 0:
                block.forward = partial(_recomputed, gradient_checkpointing_func, cast(Block, block))


def _recomputed(checkpointing: Callable[..., Any], block: Block, *inputs: Any) -> Any:
    """A block's forward, kept small where there will be a backward pass."""
    if block.training and torch.is_grad_enabled():
        return checkpointing(partial(Block.forward, block), *inputs)
    return Block.forward(block, *inputs)


def segments_of(attention_mask: Tensor | None) -> Tensor | None:
    """Segments [batch, length] of a mask that is 1 on text and 0 on padding: 0 and -1; None where nothing is padding.

    Raises:
        ValueError: the mask has another form than [batch, length], or padding amid a text.
    """
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2:
        raise ValueError(f"attention_mask must be [batch, length], got {list(attention_mask.shape)}")
    seen = attention_mask != 0
    if bool(seen.all()):
        return None
    starts = F.pad(seen, (1, 0))[:, :-1].logical_not() & seen
    if int(starts.sum(1).max()) > 1:
        raise ValueError("attention_mask has padding amid a text: it must be 1 on one run of each row")
    return torch.where(seen, 0, -1)


class IlladaModel(DiffusionModel):
    """Hidden states of tokens: every position sees every other."""

    config_class = IlladaConfig

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        return_dict: bool | None = None,
        **options: Any,
    ) -> BaseModelOutput | tuple[Tensor, ...]:
        """Hidden states [batch, length, hidden] after the final norm.

        Args:
            input_ids: [batch, length].
            attention_mask: 1 on text, 0 on padding, which may lie on either side and changes nothing for the text.
            return_dict: False gives a tuple.
            options: others are refused unless they are None or False.

        Raises:
            ValueError: an option that is not supported, a mask of another form, or rows longer than the context.
        """
        output = BaseModelOutput(last_hidden_state=self._hidden(input_ids, attention_mask, options))
        return output.to_tuple() if return_dict is False else output


class IlladaForMaskedLM(DiffusionModel):
    """Logits for the token at each position; what stands under [MASK] is what they are asked for."""

    config_class = IlladaConfig

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> MaskedLMOutput | tuple[Tensor, ...]:
        """Logits [batch, length, vocab] and, given labels, the cross-entropy in nats.

        Args:
            input_ids: [batch, length].
            attention_mask: as in `IlladaModel`.
            labels: [batch, length], -100 where nothing is asked. The loss is a plain mean over the rest: Eq. 1 with
                its weight 1/t is `illada.train`'s.
            num_items_in_batch: what the sum is divided by instead of their number.
            return_dict: False gives a tuple.
            options: others are refused unless they are None or False.

        Raises:
            ValueError: as there.
        """
        logits = self.transformer.logits(self._hidden(input_ids, attention_mask, options))
        loss = None
        if labels is not None:
            flat, wanted = logits.flatten(0, 1).float(), labels.flatten().to(logits.device)
            reduction = "mean" if num_items_in_batch is None else "sum"
            loss = F.cross_entropy(flat, wanted, ignore_index=-100, reduction=reduction)
            if num_items_in_batch is not None:
                loss = loss / num_items_in_batch
        output = MaskedLMOutput(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output

    @classmethod
    def can_generate(cls) -> bool:
        """Yes: by unmasking."""
        return True

    @property
    def tokenizer(self) -> Tokenizer:
        """Our tokenizer of the folder that the model was loaded from; it knows [MASK] and the ends of a text.

        Raises:
            ValueError: the model does not come from a folder.
            FileNotFoundError: the folder holds no tokenizer.
        """
        if self._tokenizer is None:
            if self.folder is None:
                raise ValueError("the model was not loaded from a folder with a tokenizer: set model.tokenizer")
            self._tokenizer = open_published(self.folder).tokenizer
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        """Give a model its tokenizer, where it was not loaded from a folder that has one."""
        self._tokenizer = tokenizer

    _tokenizer: Tokenizer | None = None

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **options: Any) -> Tensor:
        """Prompts and completions [batch, length], written by our engine; see `illada.transformers.generation`."""
        writer = LanguageModel(transformer=self.transformer, tokenizer=self.tokenizer)
        return generate(writer, self.generation_config, inputs, **options)


class LladaModel(IlladaModel):
    """Hidden states of LLaDA."""

    config_class = LladaConfig


class LladaForMaskedLM(IlladaForMaskedLM):
    """Logits of LLaDA."""

    config_class = LladaConfig


class DreamModel(IlladaModel):
    """Hidden states of Dream."""

    config_class = DreamConfig


class DreamForMaskedLM(IlladaForMaskedLM):
    """Logits of Dream."""

    config_class = DreamConfig


def register() -> None:
    """Let AutoModel and AutoModelForMaskedLM know them."""
    for model in (IlladaModel, LladaModel, DreamModel):
        AutoModel.register(model.config_class, model, exist_ok=True)
    for head in (IlladaForMaskedLM, LladaForMaskedLM, DreamForMaskedLM):
        AutoModelForMaskedLM.register(head.config_class, head, exist_ok=True)
