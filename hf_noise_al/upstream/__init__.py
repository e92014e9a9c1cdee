"""Every private hook into transformers, accelerate, peft and deepspeed, each pinned by a test.

What cannot work with them in a loop of rounds is refused here.

Upstream names relied on, each pinned by a test: ``Trainer.model_accepts_loss_kwargs``, ``Trainer._get_output_dir``,
``Trainer._push_from_checkpoint``, ``Trainer._save``, ``Trainer._save_checkpoint``, ``Trainer._load_from_checkpoint``,
``Trainer._load_best_model``, ``Trainer._remove_unused_columns``, ``Trainer._get_collator_with_removed_columns``,
``Trainer._set_signature_columns_if_needed``,
``Trainer._signature_columns``, ``Trainer._hp_search_setup``, ``Trainer._prepare_inputs``, ``Accelerator._models``,
``Accelerator.prepare`` (replaced on the instance), ``model._is_accelerate_prepared``, ``model._original_forward``,
``model._no_split_modules``, ``deepspeed_init``; in `weight_files`, where a checkpoint is read,
``model._keys_to_ignore_on_save``, ``model._weight_conversions`` and
``conversion_mapping.get_model_conversion_mapping``, the last two of transformers 5.
"""
