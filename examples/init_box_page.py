"""A web page on which you draw a box around an object once; pose_node tracks it from there, without any detector.

python examples/init_box_page.py mug drill --image /camera/color/image_raw     # then open http://localhost:8080

The node runs with detector.source:=none. A box goes to /pose_node/init_box/<object> (sensor_msgs/RegionOfInterest, pixels
of the colour image).
"""

from __future__ import annotations

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, RegionOfInterest

from rfdetr_foundationpose.camera.images import image_to_rgb

PAGE = """<!doctype html><meta charset="utf-8"><title>Where is it?</title>
<style>body{font:16px system-ui;margin:1em}canvas{max-width:100%;cursor:crosshair}button.on{background:#fc6}</style>
<p>Choose an object and draw a box around it: <span id="names"></span> <span id="said"></span></p><canvas id="c"></canvas>
<script>
const names = NAMES, canvas = document.getElementById('c'), said = document.getElementById('said');
let name = names[0], from = null, picture = new Image();
for (const n of names) { const b = document.createElement('button'); b.textContent = n;
  b.onclick = () => { name = n; mark(); }; document.getElementById('names').append(b, ' '); }
const mark = () => document.querySelectorAll('button').forEach(b => b.className = b.textContent == name ? 'on' : '');
mark();
const draw = box => { canvas.width = picture.width; canvas.height = picture.height;
  const g = canvas.getContext('2d'); g.drawImage(picture, 0, 0);
  if (box) { g.strokeStyle = '#fc6'; g.lineWidth = 3; g.strokeRect(...box); } };
const load = () => { if (from) return; const next = new Image(); next.onload = () => { picture = next; draw(); };
  next.src = 'image.jpg?' + Date.now(); };
setInterval(load, 300);
const at = e => { const r = canvas.getBoundingClientRect(), s = canvas.width / r.width;
  return [(e.clientX - r.left) * s, (e.clientY - r.top) * s]; };
const box = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])];
canvas.onpointerdown = e => { from = at(e); };
canvas.onpointermove = e => { if (from) draw(box(from, at(e))); };
canvas.onpointerup = async e => { const b = box(from, at(e)).map(Math.round); from = null;
  const r = await fetch('box', {method: 'POST', body: JSON.stringify({object: name, box: b})}); said.textContent = await r.text(); };
</script>"""


class InitBoxPage(Node):
    """Newest colour image in, boxes out. node: name of the pose node. port: 0 takes a free one."""

    def __init__(self, objects: list[str], image: str, node: str = "pose_node", port: int = 8080, **kwargs) -> None:
        super().__init__("init_box_page", **kwargs)
        self.jpeg = b""
        self.boxes = {n: self.create_publisher(RegionOfInterest, f"{node}/init_box/{n}", 1) for n in objects}
        self.create_subscription(Image, image, self.on_image, qos_profile_sensor_data)
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/image.jpg"):
                    self.answer(page.jpeg, "image/jpeg")
                else:
                    self.answer(PAGE.replace("NAMES", json.dumps(objects)).encode(), "text/html; charset=utf-8")

            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(page.start(content["object"], content["box"]).encode(), "text/plain; charset=utf-8")

            def answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.get_logger().info(f"open http://localhost:{self.server.server_port}")

    def on_image(self, message: Image) -> None:
        self.jpeg = cv2.imencode(".jpg", cv2.cvtColor(image_to_rgb(message), cv2.COLOR_RGB2BGR))[1].tobytes()

    def start(self, name: str, box: list[int]) -> str:
        """What to say to the person who drew the box: x, y, width, height in pixels."""
        if name not in self.boxes or min(box[2:]) < 4:
            return "draw a larger box"
        x, y, width, height = (max(int(v), 0) for v in box)
        self.boxes[name].publish(RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height))
        listening = self.boxes[name].get_subscription_count()
        return f"{name}: box sent" if listening else f"{name}: nobody listens; is pose_node running?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="+", help="names in objects.yaml")
    parser.add_argument("--image", default="rgb/image", help="colour topic")
    parser.add_argument("--node", default="pose_node", help="name of the pose node")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    rclpy.init()
    rclpy.spin(InitBoxPage(arguments.objects, arguments.image, arguments.node, arguments.port))


if __name__ == "__main__":
    main()
