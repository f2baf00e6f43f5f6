package kv

import (
	"context"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"
)

// AppendRequireZones appends the header of a request that sets in how many zones everything
// must be held: version u8, 1 if a person says that the others are off u8, zero u8[2], zones
// u32. The answer is that of a write.
func AppendRequireZones(dst []byte, zones uint32, asserted bool) []byte {
	return le.AppendUint32(append(dst, Version, flag(asserted, 1), 0, 0), zones)
}

func readRequireZones(header []byte) (zones uint32, asserted bool, err error) {
	r := &reader{b: header}
	r.version(0)
	word := r.u8()
	r.zero(2)
	if word > 1 {
		r.fail("flags %#x of a requirement of zones", word)
	}
	zones = r.u32()
	return zones, word == 1, r.end()
}

// requireZones sets in how many zones everything must be held.
func (s *Server) requireZones(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	zones, asserted, err := readRequireZones(r.Header)
	if err != nil {
		return wire.Answer{}, err
	}
	revision, err := g.Node.RequireZones(ctx, int(min(zones, 1<<16)), asserted)
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Header: appendWritten(nil, revision)}, nil
}

// The end of a status of a group that has had a requirement of zones: zones u32, zones before
// it was lowered u32, revision since when u64, revision of the lowering u64, asserted u8.

func appendRequirement(dst []byte, q arakoon.Requirement) []byte {
	dst = le.AppendUint32(le.AppendUint32(dst, uint32(q.Zones)), uint32(q.From))
	return append(le.AppendUint64(le.AppendUint64(dst, q.Since), q.Lowered), flag(q.Asserted, 1))
}

func (r *reader) requirement() arakoon.Requirement {
	q := arakoon.Requirement{Zones: int(r.u32()), From: int(r.u32()), Since: r.u64(), Lowered: r.u64()}
	word := r.u8()
	if r.err == nil && (word > 1 || q.Since == 0) {
		r.fail("a requirement of zones since revision %d, flags %#x", q.Since, word)
	}
	q.Asserted = word == 1
	return q
}
