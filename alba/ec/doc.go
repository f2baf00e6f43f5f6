// Package ec is an erasure code: it makes m parity shards from k data shards,
// so that any k of the k+m give back the rest.
//
// The matrix of a code is part of the format of every object that was stored
// with it: a code has an id, the id is in every manifest, and a code never
// changes. Code 1, [Vandermonde], works on bytes in GF(2^8) with the
// polynomial 0x11d. Its matrix is the (k+m) x k matrix of the powers r^c (row r,
// column c, both from 0), multiplied by the inverse of its first k rows, so
// that the data shards are stored as they are. That is the default of
// klauspost/reedsolomon, which does the arithmetic; a golden test holds its
// parity bytes. With k = 1 the matrix is a column of ones: each parity shard is
// a copy of the data, which is replication.
//
// A byte of a shard depends only on the bytes at the same place of the other
// shards. What holds for whole shards therefore holds for equal ranges of
// them: a degraded read of 4 KiB takes 4 KiB from each of k shards.
package ec
