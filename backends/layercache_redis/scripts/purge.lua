-- Drop those of the keys whose frames a clear has made invalid. Returns how many.
local current, dropped = current_stamp(), 0
for i = 1, n do
  local head = redis.pcall('GETRANGE', KEYS[2 * i - 1], 0, 63)
  if type(head) == 'string' and string.sub(head, 1, 4) == '\171LC\1' and string.sub(head, 28, 35) ~= current then
    dropped = dropped + redis.call('UNLINK', KEYS[2 * i - 1])
  end
end
return dropped
