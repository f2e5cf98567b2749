"""The networks that embed: modules of torch, imported only where one is built."""
