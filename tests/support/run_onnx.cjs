// Runs an ONNX file: node run_onnx.cjs PACKAGE FILE, with the inputs as JSON on standard input. The
// outputs are JSON on standard output. Without a file it only imports the package.
const { readFileSync } = require("fs");

async function main(name, file) {
  const ort = require(name);
  if (!file) return;
  if (name === "onnxruntime-web") ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(file)), {
    logSeverityLevel: 4,
  });
  const arrays = { float32: Float32Array, int32: Int32Array };
  const feeds = {};
  for (const [key, { type, dims, data }] of Object.entries(JSON.parse(readFileSync(0, "utf8")))) {
    feeds[key] = new ort.Tensor(type, arrays[type].from(data), dims);
  }
  const outputs = {};
  for (const [key, { dims, data }] of Object.entries(await session.run(feeds))) {
    outputs[key] = { dims, data: Array.from(data) };
  }
  console.log(JSON.stringify(outputs));
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(String(error));
  process.exit(1);
});
