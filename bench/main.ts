import { RequestBench } from './request.ts';
for (const mode of ['direct', 'bounce'] as const)
  for (const [d, q] of [
    [1, 1],
    [1, 16],
    [16, 16],
    [64, 16],
  ] as const) {
    const b = new RequestBench(mode, d, q);
    b.run(200000);
    const r = [];
    for (let i = 0; i < 5; i++) r.push(b.run(200000));
    r.sort((a, b) => a - b);
    console.log(mode, d, q, r[2].toFixed(0));
  }
