// Fills the page with what each endpoint answers; kept in a file because a strict CSP forbids inline scripts.
const show = (id, text) => { document.getElementById(id).textContent = text; };

for (const [id, url] of [["whoami", "/whoami"], ["cached", "/cached"], ["ready", "/health/ready"]]) {
  fetch(url).then((answer) => answer.text()).then((text) => show(id, text), (error) => show(id, error));
}

new EventSource("/events").addEventListener("heartbeat", (event) => show("events", `${event.lastEventId}: ${event.data}`));

const socket = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
socket.onopen = () => socket.send("echoed by the server");
socket.onmessage = (event) => show("websocket", event.data);
socket.onerror = () => show("websocket", "failed");
