package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"openvstorage/internal/wire"

	pb "go.etcd.io/raft/v3/raftpb"
)

// told is a member that keeps what it is told of refusals.
type told struct{ list []bool }

func (*told) Step(*pb.Message) error             { return nil }
func (*told) ReportUnreachable(uint64)           {}
func (m *told) ReportRefused(_ uint64, now bool) { m.list = append(m.list, now) }

// A host that has refused a member and is off later has not taken that back: the group may have
// been recovered there.
func TestRefusedAndThenOff(t *testing.T) {
	m := &told{}
	tr := &Transport{o: Options{Logger: slog.New(slog.DiscardHandler)}}
	tr.node.Store(&bound{m})
	s := &sending{t: tr, to: 2, ctx: t.Context()}
	s.went(fmt.Errorf("dial: %w", wire.ErrLife))
	s.went(errors.New("connection refused"))
	if !slices.Equal(m.list, []bool{true}) {
		t.Errorf("the member was told %v", m.list)
	}
}
