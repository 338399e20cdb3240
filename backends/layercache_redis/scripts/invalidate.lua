-- Give KEYS[1] a new stamp and say so in the log. ARGV 8: the name that the log has for it
redis.call('DEL', stamp_key) -- a server that is out of memory lets a script go on once it has given some back
put(stamp_key, ARGV[3], STAMP_LIFE)
if log_key then tell('t', ARGV[8], 's', ARGV[3]) end
return 1
