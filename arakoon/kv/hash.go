package kv

import (
	"context"

	"openvstorage/internal/wire"
)

// AppendHashAt appends the header of a question for a member's hash at a revision. Revision 0
// has the leader propose that all members hash their state, and answer with the revision and
// its own hash; the release before refuses it.
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
func ReadHash(header []byte) (revision uint64, sum [32]byte, err error) {
	r := &reader{b: header}
	r.version(3)
	revision = r.u64()
	if rest := r.rest(); r.err == nil && copy(sum[:], rest) != len(rest) || len(rest) != len(sum) {
		r.fail("a hash of %d bytes", len(rest))
	}
	return revision, sum, r.err
}

// hashAt waits until the member has come to the revision, and has hashed its state there.
func (s *Server) hashAt(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	revision, err := readHashAt(r.Header)
	if err != nil {
		return wire.Answer{}, err
	}
	var sum [32]byte
	if revision == 0 {
		revision, sum, err = g.Node.Hash(ctx)
	} else {
		sum, err = g.Node.HashAt(ctx, revision)
	}
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Header: append(appendWritten(nil, revision), sum[:]...)}, nil
}
