// Loads a trace into Perfetto's own trace processor, and prints as JSON what that has understood.
//
// usage: node perfetto.mjs FOLDER TRACE    (FOLDER: what perfetto.sh has fetched)
//
// The trace processor is that of ui.perfetto.dev, compiled to WebAssembly and made for a worker of a page. Here both ends of the
// worker's message port are in this process.
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInThisContext } from 'node:vm';

// Most of the 13 MB is never run: compile what is, and only once.
setFlagsFromString('--liftoff-only');
setFlagsFromString('--wasm-lazy-compilation');

const [folder, trace] = process.argv.slice(2).map((path) => resolve(path));

function startWorker(port) {
    let code = readFileSync(join(folder, 'engine_bundle.node.js'), 'utf8');
    const replace = (from, to) => {
        if (!code.includes(from)) throw new Error(`another trace processor than expected: it lacks "${from}"`);
        code = code.replace(from, to);
    };
    // It would ask for the 64-bit build of itself, and fetch itself as a page does.
    replace('this.useMemory64 = hasMemory64Support();', 'this.useMemory64 = false;');
    replace('locateFile: (s) => s,', 'locateFile: (s) => s, wasmBinary: globalThis.wasmBinary,');
    replace('const wasmBridge = new wasm_bridge_1.WasmBridge();',
        'const wasmBridge = globalThis.bridge = new wasm_bridge_1.WasmBridge();');
    Object.assign(globalThis, {
        self: globalThis,
        WorkerGlobalScope: class {},
        location: { href: `${pathToFileURL(folder).href}/` },
        wasmBinary: readFileSync(join(folder, 'trace_processor.wasm')),
    });
    runInThisContext(code);
    globalThis.bridge.initialize(port);
}

const { EngineBase } = await import(pathToFileURL(join(folder, 'engine.mjs')));

class Engine extends EngineBase {
    mode = 'WASM';
    id = 'test';

    constructor(port) {
        super();
        this.port = port;
        port.onmessage = (message) => this.onRpcResponseBytes(message.data);
    }

    rpcSendRequestBytes(bytes) {
        this.port.postMessage(bytes);
    }

    async rows(sql) {
        const result = await this.query(sql);
        if (result.error()) throw new Error(result.error());
        const rows = [];
        for (const row = result.iter({}); row.valid(); row.next()) {
            const values = result.columns().map((name) => [name, row.get(name)]);
            rows.push(Object.fromEntries(values.map(([name, value]) => [name, typeof value === 'bigint' ? Number(value) : value])));
        }
        return rows;
    }
}

const channel = new MessageChannel();
const engine = new Engine(channel.port2);
startWorker(channel.port1);
await engine.parse(new Uint8Array(readFileSync(trace)));
await engine.notifyEof();

console.log(JSON.stringify({
    errors: await engine.rows(`select name, value from stats where severity in ('error', 'data_loss') and value != 0`),
    process: await engine.rows('select pid, name from process where pid != 0'),
    threads: await engine.rows(`select thread.name as name, count(*) as slices from slice
        join thread_track on slice.track_id = thread_track.id join thread using (utid) group by thread.name order by is_main_thread desc, tid`),
    slices: await engine.rows(`select category, count(*) as count, min(dur) as shortest, sum(dur) as total from slice
        group by category`),
    flows: await engine.rows(`select count(*) as count, sum(begin.ts > end.ts) as backwards, sum(begin.name = end.name) as same
        from flow join slice begin on slice_out = begin.id join slice end on slice_in = end.id`),
    stacks: await engine.rows(`select slice.name as name, display_value as stack from slice join args using (arg_set_id)
        where key = 'args.stack'`),
}));
process.exit(0);
