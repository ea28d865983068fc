"""What all kinds of retrievers with a transformer share: loading it, its speed, adapters, the files of its folder."""
