-- Drop keys. Returns the beginning of what each held, '' for nothing of ours, and the cache's stamp at the end.
local heads = {}
for i = 1, n do
  local head = redis.pcall('GETRANGE', KEYS[2 * i - 1], 0, 255)
  if type(head) ~= 'string' then head = '' end
  if #head == 256 and struct.unpack('>I2', head, 23) > 252 then -- it has many tags
    head = redis.call('GETRANGE', KEYS[2 * i - 1], 0, struct.unpack('>I2', head, 23) + 3)
  end
  heads[i] = head
  redis.call('UNLINK', KEYS[2 * i - 1])
end
heads[n + 1] = current_stamp()
written()
return heads
