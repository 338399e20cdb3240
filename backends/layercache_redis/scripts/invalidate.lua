-- Give KEYS[1] a new stamp and say so in the log. ARGV 8: the name that the log has for it
redis.call('DEL', stamp_key) -- a server that is out of memory lets a script go on once it has given some back
put(stamp_key, ARGV[3], ARGV[4])
if log_key then redis.call('XADD', log_key, 'MAXLEN', '~', ARGV[5], '*', 'n', ARGV[6], 't', ARGV[8]) end
return 1
