//! Decoder and encoder by shape of block, and placement on a grid.
//!
//! `cargo bench --bench decode`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mef3_server::mef::red::{Decoder, Encoder};
use mef3_server::mef::synth::Synth;
use mef3_server::mef::{Scale, place};

/// Rate in Hz and samples a block: ten seconds and one second of a clinical
/// channel, one second of a fast one.
const SHAPES: [(f64, usize); 3] = [(256.0, 2560), (256.0, 256), (5000.0, 5000)];

fn signal(rate: f64, samples: usize) -> Vec<i32> {
    let mut signal = vec![0; samples];
    Synth::new(1, 0, rate).fill(&mut signal);
    signal
}

fn codec(criterion: &mut Criterion) {
    for (rate, samples) in SHAPES {
        let name = format!("{samples} samples at {rate} Hz");
        let signal = signal(rate, samples);
        let mut block = Vec::new();
        Encoder::new()
            .encode(&signal, 0, true, &mut block)
            .expect("the signal can be encoded");
        let mut group = criterion.benchmark_group("red");
        group.throughput(Throughput::Elements(samples as u64));
        let (mut decoder, mut decoded) = (Decoder::new(), Vec::new());
        group.bench_function(BenchmarkId::new("decode", &name), |bencher| {
            bencher.iter(|| {
                decoded.clear();
                decoder.decode(black_box(&block), &mut decoded)
            });
        });
        let (mut encoder, mut encoded) = (Encoder::new(), Vec::new());
        group.bench_function(BenchmarkId::new("encode", &name), |bencher| {
            bencher.iter(|| {
                encoded.clear();
                encoder.encode(black_box(&signal), 0, true, &mut encoded)
            });
        });
        group.finish();
    }
}

fn placement(criterion: &mut Criterion) {
    let counts = signal(256.0, 2560);
    let scale = Scale {
        factor: 0.1,
        null_is_gap: false,
    };
    let mut group = criterion.benchmark_group("place");
    group.throughput(Throughput::Elements(counts.len() as u64));
    let mut row = vec![0f32; counts.len()];
    group.bench_function("f32", |bencher| {
        bencher.iter(|| place(black_box(&counts), 0, scale, 0, &mut row));
    });
    let mut row = vec![0f64; counts.len()];
    group.bench_function("f64", |bencher| {
        bencher.iter(|| place(black_box(&counts), 0, scale, 0, &mut row));
    });
    group.finish();
}

criterion_group!(benches, codec, placement);
criterion_main!(benches);
