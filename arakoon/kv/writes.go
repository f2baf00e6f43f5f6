package kv

import (
	"bytes"
	"context"
	"fmt"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"
	"openvstorage/internal/wire"

	"github.com/google/uuid"
)

// write does a sequence, in a session or without. Order of what must hold: the sequence is
// read whole before it is proposed, as a member that applies what it cannot read stops; and
// its bytes are copied out of the request's memory, as they stay with the member when ctx
// has ended and that memory has another use.
func (s *Server) write(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	session, request, err := readWrite(r.Header)
	if err != nil {
		return wire.Answer{}, err
	}
	seq, err := state.Parse(bytes.Clone(r.Body))
	if err != nil {
		return wire.Answer{}, err
	}
	var (
		revision uint64
		results  []arakoon.Result
	)
	if session == uuid.Nil {
		revision, results, err = g.Node.Write(ctx, seq)
	} else {
		// The number is the client's: the same one again is a retry, whether or not this
		// member has heard of it before.
		revision, results, err = g.Node.ResumeSession(session, request).Retry(ctx, seq)
	}
	if err != nil {
		return wire.Answer{}, err
	}
	size := 0
	for _, one := range results {
		size += state.ResultHead + len(one.Value)
	}
	if size > wire.BodyMax {
		return wire.Answer{}, &arakoon.Error{Code: state.CodeResultLost, Message: fmt.Sprintf("the sequence was done; its results have %d bytes, more than an answer may", size)}
	}
	return wire.Answer{Header: appendWritten(nil, revision), Body: s.body(r.Peer, state.AppendResults(make([]byte, 0, size), results)), Sum: true}, nil
}

// openSession opens a session under an id that nobody has had. So a request that comes late
// or twice opens one that nobody uses, and never makes an old one begin anew, in which an
// old write could be done again.
func (s *Server) openSession(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	b := reader{b: r.Header}
	b.version(0)
	if err := b.end(); err != nil {
		return wire.Answer{}, err
	}
	opened, err := g.Node.NewSession(ctx)
	if err != nil {
		return wire.Answer{}, err
	}
	id, _ := opened.ID()
	return wire.Answer{Header: append(appendWritten(nil, g.Node.Applied()), id[:]...)}, nil
}

// transfer gives the lead away, to the best other member if none is named.
func (s *Server) transfer(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	b := reader{b: r.Header}
	b.version(3)
	to := b.u64()
	err := b.end()
	if err == nil {
		err = g.Node.Transfer(ctx, to)
	}
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Header: appendWritten(nil, g.Node.Applied())}, nil
}

// changeMembers makes a group's members those of the request, in one joint change.
func (s *Server) changeMembers(ctx context.Context, g *Group, r *wire.Incoming) (wire.Answer, error) {
	want, err := readMembers(r.Header)
	if err == nil {
		err = g.Node.ChangeMembers(ctx, want)
	}
	if err != nil {
		return wire.Answer{}, err
	}
	return wire.Answer{Header: appendWritten(nil, g.Node.Applied())}, nil
}
