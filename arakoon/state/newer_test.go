package state

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format/unknown"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

// with returns b with a byte changed.
func with(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

// An entry that another release wrote, and that this one cannot read, stops the
// member by name with nothing of it applied; it is never an ordinary result. Opened
// again, it stops there again.
func TestUnreadableEntriesStop(t *testing.T) {
	head, first := entryHead, entryHead+commandHead
	set := AppendBatch(nil, Batch{Origin: 1, Number: 1, Commands: []Command{{Body: body(t, new(Sequence).Set([]byte("k"), []byte("v")).Replace([]byte("k"), []byte("w")))}}})
	cases := map[string]unknown.Case{}
	replace := first + 1 + 4 + 1 + 4 + 1 // its kind
	for _, c := range []struct {
		name, says string
		data       []byte
		newer      bool
	}{
		{"a later version", "entry of format 2", with(set, 0, 2), true},
		{"a flag", "flags 0x1", with(set, 2, 1), true},
		{"version 0", "format 0", with(set, 0, 0), false},
		{"a later version of a command", "format 2", with(set, head, 2), true},
		{"a kind of command", "command of kind 3", with(set, head+2, 3), true},
		{"a kind of step", "step of kind 19", with(set, replace, 19), true},
		{"option of a step", "option", with(set, replace+1+4+1, 2), false},
		{"length of a step", "bytes are needed", with(set, replace+1, 99), false},
		{"bytes behind", "bytes too many", append(bytes.Clone(set), 0), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := crashdisk.New()
			s := openOnly(t, fsys)
			apply(t, s, Command{Body: body(t, new(Sequence).Set([]byte("before"), []byte("v")))})
			for range 2 {
				e := entryOf(s.Applied().Index + 1)
				e.Data = c.data
				_, err := s.Apply([]*pb.Entry{e}, nil)
				if c.newer {
					cases[c.name] = unknown.Case{Says: c.says, Read: func() error { return err }}
				}
				if !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrNewer) != c.newer {
					t.Fatalf("%v", err)
				}
				if _, err := s.Apply([]*pb.Entry{entryOf(s.Applied().Index + 1)}, nil); !errors.Is(err, ErrStopped) {
					t.Errorf("it goes on: %v", err)
				}
				_ = s.Close()
				s = openOnly(t, fsys)
				if _, found, err := s.Get([]byte("k")); found || err != nil {
					t.Errorf("a part of it was applied: %v", err)
				}
			}
			_ = s.Close()
		})
	}
	unknown.Walk(t, "Entry of a raft log", cases)
}

// What is stored under the keys m and s is refused when it is a newer release's.
func TestNewerValues(t *testing.T) {
	m := appendMeta(nil, meta{at: Position{Conf: &pb.ConfState{Voters: []uint64{3}}}})
	session := appendSession(nil, session{request: 4}, lastOpened, Outcome{})
	value := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := decodeMeta(b); return err }}
	}
	level2 := appendMeta(nil, meta{level: 2, at: Position{Conf: &pb.ConfState{Voters: []uint64{3}}}})
	held := appendLease(nil, Lease{TTL: LeaseTTLMin})
	lease := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := decodeLease("n", b); return err }}
	}
	required := appendRequirement(nil, Requirement{Zones: 2, Since: 7})
	zones := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := decodeRequirement(b); return err }}
	}
	unknown.Walk(t, "State of a group", map[string]unknown.Case{
		"a later version": value("format 4", with(m, 0, 4)), "an incompatible feature": value("features 0x1", with(m, 2, 1)),
		"a flag": value("flags 0x2", with(m, 52, 2)), "a field behind the generation": value("behind its fields", append(bytes.Clone(m), 0)),
		"a level": value("level 5", with(level2, len(level2)-8, LevelNewest+1)), "a later version of a lease": lease("format 0x2", with(held, 0, 2)),
		"a later requirement of zones": zones("format 2", with(required, 0, 2)), "a flag of a requirement of zones": zones("flags 0x2", with(required, 2, 2)),
		"a field of a requirement of zones": zones("behind its fields", append(bytes.Clone(required), 0)),
		"a field of a lease":                lease("45 bytes", append(bytes.Clone(held), 0)),
		"a kind of session":                 {Says: "kind 4", Read: func() error { _, _, _, err := decodeSession(with(session, len(session)-1, 4)); return err }},
	})
	for i := range m {
		if _, err := decodeMeta(m[:i]); err == nil {
			t.Errorf("%d bytes are taken for whole", i)
		}
	}
}

// Life and generation only rise, with the first change after an opening, and a state
// of a later life than the group's is refused. Version 1 of the meta has neither.
func TestLife(t *testing.T) {
	fsys := crashdisk.New()
	opt := Options{FS: fsys, Dir: "/state", Cluster: testCluster, Member: 3, Begin: Position{Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{3}}}}
	opened := func(life, generation uint64) error {
		opt.Life, opt.Generation = life, generation
		s, err := Open(opt)
		if err != nil {
			return err
		}
		apply(t, s, Command{Body: body(t, new(Sequence).Set([]byte("k"), nil))})
		if s.meta.life != max(life, 2) || s.meta.generation != 9 {
			t.Errorf("told %d, %d it has %d, %d", life, generation, s.meta.life, s.meta.generation)
		}
		return s.Close()
	}
	for _, told := range [][2]uint64{{2, 9}, {0, 0}, {2, 4}, {3, 9}} {
		if err := opened(told[0], told[1]); err != nil {
			t.Fatal(told, err)
		}
	}
	if err := opened(2, 9); !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "life 3") {
		t.Error(err)
	}
}

// Try tells what would stop the member, and leaves nothing behind, beside Apply.
func TestTry(t *testing.T) {
	functions, err := NewRegistry(
		Function{Name: "stop", Version: 1, Check: func([]byte) error { return nil }, Run: func(tx Tx, arg []byte) ([]byte, error) {
			tx.Set([]byte("left"), arg)
			if v, _ := tx.Get([]byte("k")); string(v) == "strange" {
				return nil, Stop(errors.New("strange"))
			}
			return nil, &Error{Code: CodeUser}
		}},
		Function{Name: "panics", Version: 1, Check: func([]byte) error { return nil }, Run: func(Tx, []byte) ([]byte, error) { panic("x") }},
		Function{Name: "plain", Version: 1, Run: func(Tx, []byte) ([]byte, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{FS: crashdisk.New(), Dir: "/state", Cluster: uuid.New(), Member: 3, Functions: functions, Begin: Position{Index: 1, Term: 1, Conf: &pb.ConfState{}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	call := new(Sequence).Set([]byte("set"), nil).Call("stop", 1, []byte("arg"))
	for _, value := range []string{"usual", "strange"} {
		apply(t, s, Command{Body: body(t, new(Sequence).Set([]byte("k"), []byte(value)))})
		before := dump(t, s)
		if err := s.Try(body(t, call)); (err != nil) != (value == "strange") {
			t.Errorf("%s: %v", value, err)
		}
		if after := dump(t, s); len(after) != len(before) {
			t.Errorf("it left %v", after)
		}
	}
	if err := s.Try(body(t, new(Sequence).Call("panics", 1, nil))); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Error(err)
	}
	if !call.MayStop(functions) || new(Sequence).Call("plain", 1, nil).MayStop(functions) || new(Sequence).Set(nil, nil).MayStop(functions) {
		t.Error("it does not know which sequences to try")
	}
}
