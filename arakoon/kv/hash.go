package kv

import (
	"context"

	"openvstorage/internal/wire"
)

// AppendHashAt appends the header of a question for a member's hash at a revision.
func AppendHashAt(dst []byte, revision uint64) []byte {
	return le.AppendUint64(append(dst, Version, 0, 0, 0), revision)
}

func readHashAt(header []byte) (revision uint64, err error) {
	r := &reader{b: header}
	r.version(3)
	revision = r.u64()
	return revision, r.end()
}

// ReadHash reads the header of an answer to it.
func ReadHash(header []byte) (sum [32]byte, err error) {
	r := &reader{b: header}
	r.version(3)
	r.u64()
	if rest := r.rest(); r.err == nil && copy(sum[:], rest) != len(rest) || len(rest) != len(sum) {
		r.fail("a hash of %d bytes", len(rest))
	}
	return sum, r.err
}

// hashAt waits until the member has come to the revision, and has hashed its state there.
func (s *Server) hashAt(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	revision, err := readHashAt(r.Header)
	if err != nil {
		return wire.Answer{}, err
	}
	sum, err := g.Node.HashAt(ctx, revision)
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Header: append(appendWritten(nil, revision), sum[:]...)}, nil
}
