// The connection to the server. Messages are JSON, which bytes may follow: see messages.py.
const waiting = new Map(); // what to call with the events of each job
const queue = []; // messages from before the connection is open
const coder = new TextEncoder(), decoder = new TextDecoder(), lost = { event: "failed", message: "the connection to the studio ended" };
let socket, count = 0;

export function connect(closed) {
  const address = new URL("tab", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.hash = "";
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => queue.splice(0).forEach((message) => socket.send(message));
  socket.onmessage = ({ data }) => {
    const [event, payload] = typeof data === "string" ? [JSON.parse(data)] : unpack(data), tell = waiting.get(event.id);
    if (["done", "failed", "stopped"].includes(event.event)) waiting.delete(event.id);
    tell?.(event, payload);
  };
  socket.onclose = () => {
    for (const tell of waiting.values()) tell(lost);
    waiting.clear();
    closed();
  };
}

function unpack(data) {
  const end = 4 + new DataView(data).getUint32(0, true);
  return [JSON.parse(decoder.decode(new Uint8Array(data, 4, end - 4))), data.slice(end)];
}

function pack(fields, payload) {
  const text = JSON.stringify(fields);
  if (!payload) return text;
  const head = coder.encode(text), message = new Uint8Array(4 + head.length + payload.byteLength);
  new DataView(message.buffer).setUint32(0, head.length, true);
  message.set(head, 4);
  message.set(new Uint8Array(payload), 4 + head.length);
  return message;
}

// Ask for something. `tell(event, payload)` is called with each event; the last is done, failed, or stopped.
export function ask(fields, tell, payload) {
  const id = ++count;
  waiting.set(id, tell);
  send(pack({ id, ...fields }, payload));
  if (socket.readyState > WebSocket.OPEN) setTimeout(() => waiting.delete(id) && tell(lost));
  return { id, stop: () => send(pack({ id, do: "stop" })) };
}

function send(message) {
  if (socket.readyState === WebSocket.CONNECTING) queue.push(message);
  else if (socket.readyState === WebSocket.OPEN) socket.send(message);
}
