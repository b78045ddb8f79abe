"""What a request used: its record, its tokens by bucket, our own counts where nobody tells."""
