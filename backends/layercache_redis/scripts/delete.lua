-- Drop keys. Returns the beginning of what each held, '' for nothing of ours, and the cache's stamp at the end.
local heads = {}
for i = 1, n do
  local head = redis.pcall('GETRANGE', KEYS[2 * i - 1], 0, 511)
  heads[i] = type(head) == 'string' and head or ''
  redis.call('UNLINK', KEYS[2 * i - 1])
end
heads[n + 1] = current_stamp()
written()
return heads
