"""Every private hook into transformers, accelerate, peft and deepspeed, each pinned by a test.

What cannot work with them in a loop of rounds is refused here.
"""
