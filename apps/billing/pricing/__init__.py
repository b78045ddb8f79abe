"""What organizations pay: price books beside the list prices, previews of a change, and re-ratings of the past."""
