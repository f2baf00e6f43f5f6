package kv

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"openvstorage/arakoon"
	"openvstorage/arakoon/state"

	"github.com/google/uuid"
)

var testSession = uuid.MustParse("01020304-0506-0708-090a-0b0c0d0e0f10")

// goldens are one of each header and body.
func goldens() map[string][]byte {
	f := Failure{Number: 7, Code: 65543, Step: 2, Key: []byte("key"), Words: "words"}
	status := testStatus()
	figures := Statistics{Held: 3, Reads: 2, Ops: []OpStats{{OpGet, 9, 1, 12 * time.Microsecond, 5 * time.Microsecond}}}
	read := AppendRead(nil, arakoon.AtLeast(0x0102030405060708))
	return map[string][]byte{
		"get":        append(AppendRead(nil, arakoon.Local), "key"...),
		"range":      AppendScan(read, &Scan{First: []byte("a"), Last: []byte("b"), Descending: true, KeysOnly: true, Limit: 5, Bytes: 6}),
		"count":      AppendBounds(AppendRead(nil, arakoon.Consistent), []byte("a"), nil),
		"keys":       AppendKeys(nil, [][]byte{[]byte("a"), {}}),
		"write":      AppendWrite(nil, testSession, 9),
		"answer":     appendAnswer(nil, &Answer{Revision: 5, Age: 1500 * time.Millisecond, Aged: true, More: true, Exists: true}),
		"watch":      AppendWatch(nil, 7, 1500*time.Millisecond, 4096, []byte("p")),
		"events":     appendEvents(nil, &arakoon.Events{Revision: 9, List: []arakoon.Event{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("b"), Deleted: true}}}),
		"level":      Level{Group: 2, Knows: 3}.append(nil),
		"raise":      AppendRaise(nil, 3),
		"zones":      AppendRequireZones(nil, 2, true),
		"written":    appendWritten(nil, 12),
		"failure":    f.append(nil),
		"status":     status.append(nil),
		"statistics": figures.append(nil),
	}
}

func testStatus() Status {
	return Status{
		Member: 1, Leader: 2, Term: 3, Commit: 4, Applied: 5, Leads: true, Full: true, Failed: true, Voters: []uint64{1, 2, 3}, Learners: []uint64{4}, Outgoing: []uint64{5},
		Proposals: 6, ProposalBytes: 7, Reads: 8, Followers: []Follower{{2, 9, 10, true, false, true, false}, {4, 11, 12, false, true, false, true}},
		Role: "leader", Obstacle: "none",
	}
}

// Neighbouring releases speak these bytes. They never change.
func TestBytesNeverChange(t *testing.T) {
	for name, b := range goldens() {
		if got := hex.EncodeToString(b); got != golden[name] {
			t.Errorf("%q: %q,", name, got)
		}
	}
}

var golden = map[string]string{
	"events":     "090000000000000002000000000100000061010000003101010000006200000000",
	"watch":      "010000000700000000000000dc0500000010000070",
	"answer":     "01070000dc0500000500000000000000",
	"count":      "010000000000000000000000010000006100",
	"failure":    "0100000007000000000000000700010002000000030000006b6579776f726473",
	"get":        "0101000000000000000000006b6579",
	"keys":       "010000006100000000",
	"level":      "010000000200000003000000",
	"raise":      "0100000003000000",
	"zones":      "0101000002000000",
	"range":      "0102000008070605040302010305000000060000000100000061010100000062",
	"statistics": "0100000003000000000000000200000001000000010009000000000000000100000000000000e02e0000000000008813000000000000",
	"status":     "0107000001000000000000000200000000000000030000000000000004000000000000000500000000000000070000000000000006000000080000000300000001000000000000000200000000000000030000000000000001000000040000000000000001000000050000000000000002000000020000000000000009000000000000000a000000000000000504000000000000000b000000000000000c000000000000000a060000006c6561646572040000006e6f6e65",
	"write":      "010000000102030405060708090a0b0c0d0e0f100900000000000000",
	"written":    "010000000c00000000000000",
}

func TestNumbersNeverChange(t *testing.T) {
	ops := ""
	for op := range uint16(opMost) {
		if (handlers[op] != nil) != (OpName(op) != "") {
			t.Errorf("operation %d has a name or a handler alone", op)
		}
		if OpName(op) != "" {
			ops += fmt.Sprintf("%d %s, ", op, OpName(op))
		}
	}
	if ops != "1 get, 2 get-local, 3 exists, 4 exists-local, 5 multi-get, 6 multi-get-local, 7 range, 8 range-local, 9 count, 10 count-local, 11 settle, 12 watch, 16 write, 17 open-session, 18 transfer, 19 change-members, 20 raise-level, 24 require-zones, 32 status, 33 statistics, 40 hash-at, 41 level, " {
		t.Error(ops)
	}
	for status, name := range map[uint16]string{
		260: "NOT_MASTER", 261: "NOT_FOUND", 263: "ASSERTION_FAILED", 272: "GOING_DOWN", 288: "NOT_SUPPORTED", 289: "NO_LONGER_MASTER", 294: "BAD_INPUT",
		384: "INCONSISTENT_READ", 385: "USERFUNCTION_FAILURE", 511: "UNKNOWN", 512: "BUSY", 513: "FAILED", 514: "SESSION", 515: "UNKNOWN_FUNCTION", 516: "STEP_FAILED", 517: "DEADLINE", 518: "NOT_TRANSFERRED", 519: "COMPACTED", 520: "LEVEL", 521: "LIFE",
	} {
		if StatusName(status) != name {
			t.Errorf("%d is %q, not %s", status, StatusName(status), name)
		}
	}
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	g := goldens()
	r := &reader{b: g["range"]}
	if c, s := r.consistency(), r.scan(); r.end() != nil || c != arakoon.AtLeast(0x0102030405060708) ||
		!reflect.DeepEqual(s, Scan{First: []byte("a"), Last: []byte("b"), Descending: true, KeysOnly: true, Limit: 5, Bytes: 6}) {
		t.Errorf("%+v, %+v, %v", c, s, r.err)
	}
	if keys, err := readKeys(2, g["keys"]); err != nil || len(keys) != 2 || string(keys[0]) != "a" || len(keys[1]) != 0 {
		t.Errorf("%q, %v", keys, err)
	}
	if session, request, err := readWrite(g["write"]); err != nil || session != testSession || request != 9 {
		t.Errorf("%v, %d, %v", session, request, err)
	}
	a, rest, err := ReadAnswer(append(g["answer"], "rest"...))
	if err != nil || string(rest) != "rest" || a != (Answer{Revision: 5, Age: 1500 * time.Millisecond, Aged: true, More: true, Exists: true}) {
		t.Errorf("%+v, %q, %v", a, rest, err)
	}
	if revision, rest, err := ReadWritten(g["written"]); err != nil || revision != 12 || len(rest) != 0 {
		t.Errorf("%d, %q, %v", revision, rest, err)
	}
	var events []arakoon.Events
	if err := ReadEvents(g["events"], func(e arakoon.Events) error { events = append(events, e); return nil }); err != nil || len(events) != 1 ||
		!reflect.DeepEqual(events[0], arakoon.Events{Revision: 9, List: []arakoon.Event{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("b"), Deleted: true}}}) {
		t.Errorf("%+v, %v", events, err)
	}
	f, err := ReadFailure(StatusUserFunction, g["failure"])
	if err != nil || !reflect.DeepEqual(f, Failure{StatusUserFunction, 7, 65543, 2, []byte("key"), "words"}) {
		t.Errorf("%+v, %v", f, err)
	}
	if s, err := ReadStatus(g["status"]); err != nil || !reflect.DeepEqual(s, testStatus()) {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := ReadStatistics(g["statistics"]); err != nil || s.Held != 3 || s.Reads != 2 || len(s.Ops) != 1 || s.Ops[0] != (OpStats{OpGet, 9, 1, 12 * time.Microsecond, 5 * time.Microsecond}) {
		t.Errorf("%+v, %v", s, err)
	}
}

// decoders are all that read what came from outside. Each returns an error, or takes it.
var decoders = map[string]func(b []byte) error{
	"get": func(b []byte) error { r := &reader{b: b}; r.consistency(); r.rest(); return r.err },
	"range": func(b []byte) error {
		r := &reader{b: b}
		r.consistency()
		r.scan()
		return r.end()
	},
	"count": func(b []byte) error { r := &reader{b: b}; r.consistency(); r.bytes(); r.option(); return r.end() },
	"keys": func(b []byte) error {
		if len(b) < 2 {
			return nil
		}
		_, err := readKeys(uint32(b[0])|uint32(b[1])<<17, b[2:])
		return err
	},
	"values": func(b []byte) error {
		if len(b) < 2 {
			return nil
		}
		_, err := ReadValues(int(b[0])|int(b[1])<<17, b[2:])
		return err
	},
	"page":       func(b []byte) error { return ReadPage(b, false, func(_, _ []byte) bool { return true }) },
	"page keys":  func(b []byte) error { return ReadPage(b, true, func(_, _ []byte) bool { return true }) },
	"watch":      func(b []byte) error { _, _, _, _, err := readWatch(b); return err },
	"events":     func(b []byte) error { return ReadEvents(b, func(arakoon.Events) error { return nil }) },
	"write":      func(b []byte) error { _, _, err := readWrite(b); return err },
	"answer":     func(b []byte) error { _, _, err := ReadAnswer(b); return err },
	"counted":    func(b []byte) error { _, _, err := ReadCount(b); return err },
	"hash":       func(b []byte) error { _, _, err := ReadHash(b); return err },
	"hash at":    func(b []byte) error { _, err := readHashAt(b); return err },
	"raise":      func(b []byte) error { _, err := readRaise(b); return err },
	"zones":      func(b []byte) error { _, _, err := readRequireZones(b); return err },
	"level":      func(b []byte) error { _, err := ReadLevel(b); return err },
	"written":    func(b []byte) error { _, _, err := ReadWritten(b); return err },
	"failure":    func(b []byte) error { f, err := ReadFailure(StatusAssert, b); _ = f.Err(); return err },
	"status":     func(b []byte) error { _, err := ReadStatus(b); return err },
	"statistics": func(b []byte) error { _, err := ReadStatistics(b); return err },
}

// Half a header is none, and neither is another version's.
func TestHalvesAreRefused(t *testing.T) {
	for name, b := range goldens() {
		decode := decoders[name]
		if decode == nil || name == "keys" || name == "events" {
			t.Logf("%s: elsewhere", name)
			continue
		}
		if err := decode(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		fixed := map[string]int{"get": readHead, "failure": 24, "watch": 20}[name]
		if fixed == 0 {
			fixed = len(b)
		}
		for n := range fixed {
			if err := decode(b[:n:n]); !errors.Is(err, ErrBadInput) {
				t.Errorf("%s: %d bytes of %d: %v", name, n, len(b), err)
			}
		}
		other := bytes.Clone(b)
		other[0]++
		if err := decode(other); !errors.Is(err, ErrBadInput) {
			t.Errorf("%s: another version: %v", name, err)
		}
	}
}

func FuzzDecoders(f *testing.F) {
	for _, b := range goldens() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, decode := range decoders {
			if err := decode(b); err != nil && !errors.Is(err, ErrBadInput) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// What a failure is told as, it is taken for: the caller of a client sees the errors that
// the caller of a member sees.
func TestFailuresKeepTheirMeaning(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status uint16
		is     []error
	}{
		{fmt.Errorf("%w: %w", arakoon.ErrUnknownOutcome, arakoon.ErrClosed), StatusNoLongerMaster, []error{arakoon.ErrUnknownOutcome}},
		{arakoon.ErrNotLeader, StatusNotMaster, []error{arakoon.ErrNotLeader}},
		{fmt.Errorf("%w: many", arakoon.ErrBusy), StatusBusy, []error{arakoon.ErrBusy}},
		{arakoon.ErrClosed, StatusGoingDown, []error{arakoon.ErrClosed}},
		{arakoon.ErrFailed, StatusFailed, []error{arakoon.ErrFailed}},
		{&arakoon.Error{Code: state.CodeSessionExpired, Message: "m"}, StatusSession, []error{&arakoon.Error{Code: state.CodeSessionExpired}}},
		{&arakoon.Error{Code: state.CodeTooLarge, Message: "m"}, StatusBadInput, []error{&arakoon.Error{Code: state.CodeTooLarge}}},
		{&arakoon.Error{Code: state.CodeFunction, Message: "m"}, StatusUserFunction, []error{&arakoon.Error{Code: state.CodeFunction}}},
		{&arakoon.Error{Code: 99, Message: "m"}, StatusStep, []error{&arakoon.Error{Code: 99}}},
		{fmt.Errorf("step 3: %w", state.ErrCorrupt), StatusBadInput, []error{ErrBadInput}},
		{errors.New("not proposed"), StatusBadInput, []error{ErrBadInput}},
		{ErrInconsistent, StatusInconsistent, []error{ErrInconsistent}},
		{&state.UnknownFunctionError{Name: "f", Version: 3}, StatusUnknownFunction, []error{state.ErrUnknownFunction}},
	} {
		f := failureOf(tc.err, true)
		read, err := ReadFailure(f.Status, f.append(nil))
		if err != nil || f.Status != tc.status {
			t.Errorf("%v: %s, %v", tc.err, StatusName(f.Status), err)
		}
		for _, is := range tc.is {
			if !errors.Is(read.Err(), is) {
				t.Errorf("%v came as %v", tc.err, read.Err())
			}
		}
		if errors.Is(read.Err(), arakoon.ErrUnknownOutcome) != errors.Is(tc.err, arakoon.ErrUnknownOutcome) {
			t.Errorf("%v came as %v", tc.err, read.Err())
		}
	}
	for _, err := range []error{
		&arakoon.ErrCompacted{First: 12}, &arakoon.LevelError{Need: 3, Has: 2}, &arakoon.NotLeaderError{Leader: 3}, &arakoon.ErrNotFound{Key: []byte("k")}, &arakoon.ErrAssert{Key: []byte("k"), Step: 3},
		&arakoon.Error{Code: state.CodeUser + 1, Step: 2, Key: []byte("k"), Message: "m"}, &state.UnknownFunctionError{Name: "f", Version: 3},
	} {
		f := failureOf(err, true)
		read, _ := ReadFailure(f.Status, f.append(nil))
		if !reflect.DeepEqual(read.Err(), err) {
			t.Errorf("%#v came as %#v", err, read.Err())
		}
	}
	f := failureOf(fmt.Errorf("group: %w", &arakoon.NotLeaderError{Leader: 4}), false)
	var other *arakoon.NotLeaderError
	if !errors.As(f.Err(), &other) || other.Leader != 4 {
		t.Errorf("the hint is lost: %v", f.Err())
	}
	if f := failureOf(errors.New("a block cannot be read"), false); f.Status != StatusUnknown {
		t.Errorf("a read that failed: %s", StatusName(f.Status))
	}
	long := Failure{Words: string(make([]byte, 1<<20)), Key: make([]byte, state.KeyMax)}
	if n := len(long.append(nil)); n > 64<<10 {
		t.Errorf("a failure of %d bytes is no header", n)
	}
}
