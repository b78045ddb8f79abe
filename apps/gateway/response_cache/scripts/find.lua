-- The answer that is kept under KEYS[1], or false.
return redis.call('GET', KEYS[1])
