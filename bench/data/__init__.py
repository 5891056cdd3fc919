"""From files to pairs: readers keep raw values raw, the manifest says what they mean, one place normalises."""
