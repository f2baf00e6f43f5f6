package state

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"
	"openvstorage/internal/wal"

	"github.com/google/uuid"
	pb "go.etcd.io/raft/v3/raftpb"
)

// filled is a state with something of every kind in it.
func filled(t testing.TB, fsys *crashdisk.FS) *State {
	t.Helper()
	s := open(t, fsys)
	does(t, s, Raise(2, true), 0)
	does(t, s, new(Sequence).Acquire("n", alice, time.Second), 0)
	apply(t, s, Command{Open: true, Session: bob, Time: 9})
	apply(t, s, Command{Session: bob, Request: 1, Body: body(t, new(Sequence).Delete([]byte("none")))})
	for i := range 10 {
		does(t, s, new(Sequence).Set(fmt.Append(nil, "k", i), bytes.Repeat([]byte{byte(i)}, 20)), 0)
	}
	return s
}

func backup(t testing.TB, s *State) ([]byte, BackupInfo) {
	t.Helper()
	i, err := s.Image()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	info, err := i.Backup(t.Context(), &b, "group", nil)
	if err = errors.Join(err, i.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), info
}

func sumOf(t testing.TB, s *State) [32]byte {
	t.Helper()
	i, err := s.Image()
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	sum, err := i.Sum(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func restoreIn(from io.Reader, fsys *crashdisk.FS) (BackupInfo, error) {
	opt := Options{FS: fsys, Dir: "/state", Cluster: testCluster, Member: 3}
	return Restore(opt, from, func(i BackupInfo, o *Options) error {
		o.Life, o.Begin = i.Life+1, Position{Index: i.Index, Term: i.Term, Conf: &pb.ConfState{Voters: []uint64{3}}}
		return nil
	}, nil)
}

// What is restored is what was there: the hash over all is equal.
func TestBackup(t *testing.T) {
	s := filled(t, crashdisk.New())
	b, info := backup(t, s)
	if got, err := Verify(bytes.NewReader(b)); err != nil || got != info || info.Group != "group" || info.Index != s.Applied().Index || info.Level != 2 || info.Keys != 12 {
		t.Fatalf("%+v, %v, not %+v", got, err, info)
	}
	d := crashdisk.New()
	if got, err := restoreIn(bytes.NewReader(b), d); err != nil || got != info {
		t.Fatal(got, err)
	}
	r := open(t, d.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll))
	if sumOf(t, r) != sumOf(t, s) || !maps.Equal(dump(t, r), dump(t, s)) || r.meta.life != 1 {
		t.Fatal("another state was restored")
	}
	if l, ok := r.Lease("n"); !ok || l.Owner != alice {
		t.Fatal(l)
	}
	if o := apply(t, r, Command{Session: bob, Request: 1, Body: body(t, new(Sequence).Set([]byte("none"), nil))}); o.Err == nil || o.Err.Code != CodeNotFound {
		t.Fatal("a session's request was done again after a restore", o)
	}
	if _, err := restoreIn(bytes.NewReader(b), d); err == nil {
		t.Fatal("restored over a state")
	}
}

// A backup that lacks its end, or in which one bit is another, is refused, by Verify and by
// Restore.
func TestDamagedBackup(t *testing.T) {
	b, _ := backup(t, filled(t, crashdisk.New()))
	bad := func(what string, b []byte) {
		t.Helper()
		if _, err := Verify(bytes.NewReader(b)); !errors.Is(err, ErrBackup) && !errors.Is(err, format.ErrNewer) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range b {
		bad(fmt.Sprintf("cut at %d", i), b[:i])
		bad(fmt.Sprintf("a bit of byte %d", i), with(b, i, b[i]^(1<<(i%8))))
	}
	bad("a byte behind", append(bytes.Clone(b), 0))
	bad("twice", append(bytes.Clone(b), b...))
	for _, n := range []int{70, len(b) / 2, len(b) - 1} {
		d := crashdisk.New()
		if _, err := restoreIn(bytes.NewReader(b[:n]), d); !errors.Is(err, ErrBackup) {
			t.Fatal(err)
		}
		if _, err := d.Stat("/state"); err != nil {
			continue
		}
		if at, err := Peek(Options{FS: d, Dir: "/state"}); err != nil || at.Index != 0 {
			t.Fatal("half a backup is a state", at, err)
		}
	}
}

// Writing a backup ends with its context, and with the writer's error.
func TestBackupEnds(t *testing.T) {
	s := filled(t, crashdisk.New())
	i, err := s.Image()
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := i.Backup(ctx, io.Discard, "g", nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	_ = r.CloseWithError(io.ErrNoProgress)
	if _, err := i.Backup(t.Context(), w, "g", nil); !errors.Is(err, io.ErrNoProgress) {
		t.Fatal(err)
	}
	bad := errors.New("paced")
	if _, err := i.Backup(t.Context(), io.Discard, "g", func(context.Context, int) error { return bad }); !errors.Is(err, bad) {
		t.Fatal(err)
	}
}

// The hash is of the state, not of how it came about or whose it is: entries in other
// batches give the same, another value, session, lease or member another one. A mark gives
// the image at its index, whatever is applied with it.
func TestSum(t *testing.T) {
	var images []*Image
	run := func(member uint64, together int, last string) [32]byte {
		images = images[:0]
		s, err := Open(Options{
			FS: crashdisk.New(), Dir: "/state", Cluster: testCluster, Member: member, Generation: member, OnMark: func(i *Image) { images = append(images, i) },
			Begin: Position{Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{1, 2}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		entries := []*pb.Entry{entryOf(2, Command{Body: body(t, Raise(2, false))})}
		for i := uint64(3); i < 20; i++ {
			entries = append(entries, entryOf(i, Command{Body: body(t, new(Sequence).Set(fmt.Append(nil, i%5), fmt.Append(nil, i)))}))
		}
		entries = append(entries, entryOf(20, Command{Body: body(t, new(Sequence).Set([]byte("k"), []byte(last)))}, Command{Body: body(t, Mark())}, Command{Open: true, Session: bob}),
			entryOf(21, Command{Body: body(t, new(Sequence).Set([]byte("later"), fmt.Append(nil, together)))}))
		for len(entries) > 0 {
			n := min(together, len(entries))
			if a, err := s.Apply(entries[:n], nil); err != nil || len(a) != n {
				t.Fatal(len(a), err)
			}
			entries = entries[n:]
		}
		if len(images) != 1 || images[0].Index() != 20 {
			t.Fatal(images)
		}
		sum, err := images[0].Sum(t.Context(), nil)
		if err = errors.Join(err, images[0].Close()); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	if a, b := run(1, 1, "v"), run(2, 30, "v"); a != b {
		t.Error("two members have two hashes")
	}
	if run(1, 7, "v") == run(1, 7, "w") {
		t.Error("two values have one hash")
	}
	s := filled(t, crashdisk.New())
	seen := map[[32]byte]string{sumOf(t, s): "before"}
	for what, do := range map[string]func(){
		"a renewal":      func() { does(t, s, new(Sequence).Renew("n", 3, 0), 0) },
		"a session":      func() { apply(t, s, Command{Open: true, Session: uuid.Max}) },
		"a removed key":  func() { does(t, s, new(Sequence).Delete([]byte("k1")), 0) },
		"a failed write": func() { does(t, s, new(Sequence).Delete([]byte("none")), CodeNotFound) },
	} {
		do()
		sum := sumOf(t, s)
		if old, ok := seen[sum]; ok {
			t.Errorf("%s has the hash of %s", what, old)
		}
		seen[sum] = what
	}
}

func TestDump(t *testing.T) {
	d := crashdisk.New()
	s := filled(t, d)
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Dump(Options{FS: d.Kill(), Dir: "/state"}, &b, 2); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"member 3 index 15 term 1 level 2", `lease "n": owner ` + alice.String() + " fence 3 renewed 3 ttl 1s", "session " + bob.String() + `: request 1 at 5.0, kind 2, error "not found`,
		`key "k7": 20 bytes "\a\a"...`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in it:\n%s", want, b.String())
		}
	}
	if err := Dump(Options{FS: d.Kill(), Dir: "/none"}, &b, 2); err == nil {
		t.Error(err)
	}
	lines, err := DescribeEntry(AppendBatch(nil, sampleBatch(t)), -1)
	if err != nil || len(lines) != 3 || !strings.Contains(lines[2], `test and set "k" expected none wanted 1 bytes "v"; replace "k"`) {
		t.Error(lines, err)
	}
	if lines, err = DescribeEntry(AppendBatch(nil, Batch{Commands: []Command{{Body: body(t, newSteps())}}}), -1); err != nil || !strings.Contains(lines[1], `assert lease "n" fence 7;`) {
		t.Error(lines, err)
	}
}

// newSteps has every step that came with level 2.
func newSteps() *Sequence {
	s := new(Sequence).Confirm([]byte("k"), []byte("v")).Acquire("n", alice, 1500*time.Millisecond).Renew("n", 7, 0).Release("n", 7).AssertLease("n", 7)
	for _, own := range []*Sequence{Expire(Lease{Name: "n", Fence: 7, Renewed: 9}), Raise(2, true), Mark()} {
		s.body = append(s.body, own.body...)
	}
	return s
}

func TestGoldenLevel2(t *testing.T) {
	steps := body(t, newSteps())
	m := meta{cluster: testCluster, member: 3, time: 5, life: 6, generation: 0x1234, level: 2, leases: 1, at: Position{Index: 7, Term: 2, Conf: &pb.ConfState{Voters: []uint64{3}}}}
	value, lease := appendMeta(nil, m), appendLease(nil, Lease{"n", alice, 7, 9, 1500 * time.Millisecond})
	b := golden.Check(t, "testdata/level2.hex", "steps and values of level 2", bytes.Join([][]byte{steps, value, lease}, nil),
		golden.Field{Size: len(steps), Name: "steps"}, golden.Field{Size: len(value), Name: "meta"}, golden.Field{Size: len(lease), Name: "lease"})
	r := &reader{b: b[:len(steps)]}
	var kinds []byte
	for len(r.b) > 0 {
		s, err := readStep(r)
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, s.op)
	}
	if string(kinds) != string([]byte{opConfirm, opAcquire, opRenew, opRelease, opAssertLease, opExpire, opRaise, opMark}) {
		t.Fatal(kinds)
	}
	b = b[len(steps):]
	if got, err := decodeMeta(b[:len(value)]); err != nil || got.level != 2 || got.leases != 1 || got.generation != m.generation {
		t.Fatal(got, err)
	}
	if got, err := decodeLease("n", b[len(value):]); err != nil || got != (Lease{"n", alice, 7, 9, 1500 * time.Millisecond}) {
		t.Fatal(got, err)
	}
}

// backupOf makes a backup by hand, of records.
func backupOf(records ...wal.Record) []byte {
	b := format.AppendHeader(nil, format.Header{Kind: format.KindBackup, Version: 1, MinReader: 1, Owner: testCluster, Number: 7, Incarnation: 5})
	for _, r := range records {
		b = wal.Append(b, 5, r)
	}
	return b
}

var sampleHead = BackupInfo{Life: 2, Member: 3, Index: 7, Term: 4, time: 5, Level: 2, leases: 1, Group: "abm"}

func TestGoldenBackup(t *testing.T) {
	var out bytes.Buffer
	w := &backupWriter{w: &out, incarnation: 5, sum: sha256.New()}
	info := sampleHead
	info.Cluster = testCluster
	head := appendBackupHead(nil, info)
	block := appendBytes(appendBytes(appendBytes(appendBytes(nil, []byte("ln")), []byte("l")), []byte("uk")), []byte("v"))
	info.Keys, info.Bytes = 2, 6
	if err := errors.Join(w.put(backupOf()), w.record(backupHead, head), w.record(backupBlock, block), w.record(backupTrailer, appendBackupTrailer(nil, info, w.sum.Sum(nil)))); err != nil {
		t.Fatal(err)
	}
	b := golden.Check(t, "testdata/backup-v1.hex", "a backup with two keys", out.Bytes(),
		golden.Field{Size: 64, Name: "header"}, golden.Field{Size: wal.Size(len(head)), Name: "head"}, golden.Field{Size: wal.Size(len(block)), Name: "block"},
		golden.Field{Size: wal.Size(48), Name: "trailer"})
	if got, err := Verify(bytes.NewReader(b)); err != nil || got != info {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestNewerBackup(t *testing.T) {
	head := func(change func(*BackupInfo)) wal.Record {
		i := sampleHead
		change(&i)
		return wal.Record{Seq: 1, Kind: backupHead, Body: appendBackupHead(nil, i)}
	}
	same := func(*BackupInfo) {}
	header := func(h format.Header) []byte {
		h.Kind, h.Owner, h.Number, h.Incarnation = format.KindBackup, testCluster, 7, 5
		return format.AppendHeader(nil, h)
	}
	read := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := Verify(bytes.NewReader(b)); return err }}
	}
	unknown.Walk(t, "Backup of a group", map[string]unknown.Case{
		"a later minimum reader":  read("format 2", header(format.Header{Version: 2, MinReader: 2})),
		"an incompatible feature": read("features 0x1", header(format.Header{Version: 1, MinReader: 1, Incompatible: 1})),
		"a level":                 read("level 5", backupOf(head(func(i *BackupInfo) { i.Level = LevelNewest + 1 }))),
		"a kind of record":        read("kind 4", backupOf(head(same), wal.Record{Seq: 2, Kind: 4})),
		"a flag of a record":      read("flags 0x2", backupOf(head(same), wal.Record{Seq: 2, Kind: backupBlock, Flags: 2})),
	})
}

func FuzzBackup(f *testing.F) {
	b, _ := backup(f, filled(f, crashdisk.New()))
	f.Add(b)
	f.Add(b[:200])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Verify(bytes.NewReader(b)); err == nil {
			if _, err := restoreIn(bytes.NewReader(b), crashdisk.New()); err != nil && !strings.Contains(err.Error(), "leases") && !strings.Contains(err.Error(), "command") {
				t.Fatal(err)
			}
		}
	})
}

// Whatever a client sends as steps is refused, or can be applied and does not stop the
// member.
func FuzzParsed(f *testing.F) {
	s := open(f, crashdisk.New())
	f.Add(body(f, everyStep()))
	f.Add(body(f, newSteps()))
	f.Add(body(f, new(Sequence).Acquire("n", alice, time.Second)))
	f.Fuzz(func(t *testing.T, b []byte) {
		seq, err := Parse(b)
		if err != nil || seq.Check(s.opt.Functions) != nil || len(seq.calls) > 0 {
			return
		}
		w := newWrites(s)
		defer w.close()
		if _, err := s.run(w, b, 9, &meta{level: 2, at: Position{Conf: &pb.ConfState{}}}); err != nil {
			t.Fatal(err)
		}
	})
}
