// A thread with a function that V8 compiles.

function busy(count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = (sum * 31 + i) | 0;
  return sum;
}

let sum = 0;
for (let round = 0; round < 1000; round++) sum ^= busy(10_000);
console.log(`the thread has ended with ${sum}`);
