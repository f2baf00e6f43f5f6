package raftlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"

	"github.com/google/uuid"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

var testCluster = uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

const testDir = "/arakoon/log"

func testOptions(fsys disk.FS) Options {
	return Options{
		FS: fsys, Dir: testDir, Cluster: testCluster, Member: 7, SegmentBytes: 32 << 10, CacheBytes: 2 << 10,
		Begin: Marker{Index: 1, Term: 1, Conf: &pb.ConfState{Voters: []uint64{7}}},
	}
}

func newDisk(t testing.TB) *crashdisk.FS {
	t.Helper()
	d := crashdisk.New()
	if err := errors.Join(d.MkdirAll("/arakoon", 0o700), d.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	return d
}

func open(t testing.TB, fsys disk.FS) *Log {
	t.Helper()
	l, err := Open(testOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func entry(index, term uint64, data string) *pb.Entry {
	return &pb.Entry{Index: new(index), Term: new(term), Type: pb.EntryNormal.Enum(), Data: []byte(data)}
}

func hardState(term, vote, commit uint64) *pb.HardState {
	return &pb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}

// model is what a log holds.
type model struct {
	marker  uint64
	hard    string
	entries []string // those behind the marker
}

func describe(e *pb.Entry) string {
	return fmt.Sprintf("%d/%d/%v/%x", e.GetIndex(), e.GetTerm(), e.GetType(), e.Data)
}

func describeHard(h *pb.HardState) string {
	return fmt.Sprintf("%d/%d/%d", h.GetTerm(), h.GetVote(), h.GetCommit())
}

func (m model) clone() model {
	m.entries = slices.Clone(m.entries)
	return m
}

func (m model) equal(o model) bool {
	return m.marker == o.marker && m.hard == o.hard && slices.Equal(m.entries, o.entries)
}

func (m *model) last() uint64 { return m.marker + uint64(len(m.entries)) }

func (m *model) add(entries []*pb.Entry) {
	m.entries = m.entries[:entries[0].GetIndex()-m.marker-1]
	for _, e := range entries {
		m.entries = append(m.entries, describe(e))
	}
}

// contents reads a log through raft's interface.
func contents(t testing.TB, l *Log) (m model) {
	t.Helper()
	hard, _, err := l.InitialState()
	if err != nil {
		t.Fatal(err)
	}
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	m = model{marker: first - 1, hard: describeHard(hard)}
	for lo := first; lo <= last; {
		list, err := l.Entries(lo, last+1, 700)
		if err != nil || len(list) == 0 {
			t.Fatalf("entries from %d of %d: %d, %v", lo, last, len(list), err)
		}
		for _, e := range list {
			if term, err := l.Term(e.GetIndex()); err != nil || term != e.GetTerm() || e.GetIndex() != lo {
				t.Fatalf("entry %d at %d: term %d, %v", e.GetIndex(), lo, term, err)
			}
			m.entries = append(m.entries, describe(e))
			lo++
		}
	}
	return m
}

// script makes random changes and keeps what the log may hold after a crash.
type script struct {
	t        testing.TB
	rng      *rand.Rand
	log      *Log
	now      model
	possible []model // now, and what the change under way makes of it
	term     uint64
	hard     *pb.HardState    // the newest
	again    func(error) bool // whether a change that failed is to be made again; nil: never
}

// try makes a change until it succeeds, or is not to be made again.
func (s *script) try(change func() error) error {
	err := change()
	for err != nil && s.again != nil && s.again(err) {
		err = change()
	}
	return err
}

func (s *script) step() error {
	s.possible = []model{s.now.clone()}
	if s.rng.IntN(12) == 0 && len(s.now.entries) > 0 {
		n := 1 + s.rng.IntN(len(s.now.entries))
		after := s.now.clone()
		after.marker += uint64(n)
		after.entries = after.entries[n:]
		s.possible = append(s.possible, after)
		if err := s.try(func() error { return s.log.Compact(after.marker, &pb.ConfState{Voters: []uint64{7}}) }); err != nil {
			return err
		}
		s.now = after
		return nil
	}
	if s.rng.IntN(25) == 0 {
		return s.reset()
	}
	var rounds []Round
	after, hard := s.now.clone(), s.hard
	for range 1 + s.rng.IntN(3) {
		var r Round
		if s.rng.IntN(8) > 0 {
			from := after.last() + 1
			if s.rng.IntN(6) == 0 && len(after.entries) > 0 {
				from -= uint64(s.rng.IntN(len(after.entries)))
			}
			if s.rng.IntN(5) == 0 {
				s.term++
			}
			for i := range uint64(1 + s.rng.IntN(5)) {
				data := make([]byte, s.rng.IntN(1500))
				for k := range data {
					data[k] = byte(s.rng.Uint32())
				}
				r.Entries = append(r.Entries, entry(from+i, s.term, string(data)))
			}
			after.add(r.Entries)
			s.possible = append(s.possible, after.clone())
		}
		if s.rng.IntN(3) == 0 {
			r.HardState = hardState(s.term, 7, s.rng.Uint64N(after.last()+1))
			after.hard, hard = describeHard(r.HardState), r.HardState
			s.possible = append(s.possible, after.clone())
		}
		rounds = append(rounds, r)
	}
	if err := s.try(func() error { return s.log.Append(rounds...) }); err != nil {
		return err
	}
	s.now, s.hard = after, hard
	return nil
}

// reset begins the log anew, within what it holds or behind that.
func (s *script) reset() error {
	s.term++
	m := Marker{Index: s.now.marker + 1 + uint64(s.rng.IntN(len(s.now.entries)+20)), Term: s.term, Conf: &pb.ConfState{Voters: []uint64{7}}}
	hard := hardState(s.term, 7, m.Index)
	after := model{marker: m.Index, hard: describeHard(hard)}
	s.possible = append(s.possible, after)
	if err := s.try(func() error { return s.log.Reset(m, hard) }); err != nil {
		return err
	}
	s.now, s.hard = after, hard
	return nil
}

func check(t testing.TB, image disk.FS, possible []model) {
	t.Helper()
	l := open(t, image)
	got := contents(t, l)
	if !slices.ContainsFunc(possible, got.equal) {
		t.Fatalf("the log holds none of the %d states it may:\nmarker %d, hard state %s, %d entries\nbefore: marker %d, hard state %s, %d entries",
			len(possible), got.marker, got.hard, len(got.entries), possible[0].marker, possible[0].hard, len(possible[0].entries))
	}
	// A second restart finds the same, and the log goes on.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, image)
	if again := contents(t, l); !again.equal(got) {
		t.Fatal("a second restart finds another log")
	}
	last, _ := l.LastIndex()
	e := entry(last+1, 1000, "on")
	if err := l.Append(Round{Entries: []*pb.Entry{e}}); err != nil {
		t.Fatal(err)
	}
	got.add([]*pb.Entry{e})
	if again := contents(t, l); !again.equal(got) {
		t.Fatal("the log does not go on")
	}
	_ = l.Close()
}

// Power cuts in all modes, before every kind of change of the disk: nothing
// synced is lost, and nothing is there that was never appended.
func TestPowerCuts(t *testing.T) {
	modes := map[string]crashdisk.Options{"keep": crashdisk.KeepAll, "lose": crashdisk.LoseAll, "mixed": crashdisk.Mixed, "torn": crashdisk.Torn}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3) {
				rng := rand.New(rand.NewPCG(seed, 1))
				under := newDisk(t)
				faulty := faultdisk.New(under)
				s := &script{t: t, rng: rng, log: open(t, faulty), term: 1}
				s.now = contents(t, s.log)
				var image *crashdisk.FS
				crash := rand.New(rand.NewPCG(seed, 2))
				faulty.Inject(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Rename | faultdisk.Remove | faultdisk.SyncDir,
					Before: func(faultdisk.Op, string) {
						if crash.IntN(10) == 0 {
							image = under.Crash(crash, mode)
						}
					}})
				for range 120 {
					image = nil
					if err := s.step(); err != nil {
						t.Fatal(err)
					}
					if image != nil {
						check(t, image, s.possible)
					}
					if rng.IntN(10) == 0 {
						check(t, under.Crash(crash, mode), []model{s.now})
					}
					if rng.IntN(20) == 0 {
						if err := s.log.Close(); err != nil {
							t.Fatal(err)
						}
						s.log = open(t, faulty)
					}
				}
				if got := contents(t, s.log); !got.equal(s.now) {
					t.Fatal("the log holds something else")
				}
			}
		})
	}
}

// A log whose disk fails for good, from some call on, fails: nothing more is
// appended, and a restart holds all that was acknowledged.
func TestFailures(t *testing.T) {
	for _, op := range []faultdisk.Op{faultdisk.Write, faultdisk.Datasync, faultdisk.Rename, faultdisk.SyncDir} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%v %d", op, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 3))
				under := newDisk(t)
				faulty := faultdisk.New(under)
				s := &script{t: t, rng: rng, log: open(t, faulty), term: 1}
				s.now = contents(t, s.log)
				bad := errors.New("bad disk")
				faulty.Inject(faultdisk.Rule{Ops: op, Skip: rng.IntN(6), Err: bad, Short: 100})
				for {
					if err := s.step(); err != nil {
						if !errors.Is(err, ErrFailed) || !errors.Is(err, bad) {
							t.Fatal(err)
						}
						break
					}
				}
				if err := s.log.Append(Round{HardState: hardState(9, 9, 9)}); !errors.Is(err, ErrFailed) {
					t.Fatalf("append after a failure: %v", err)
				}
				check(t, under.Kill(), s.possible)
				check(t, under.Crash(rng, crashdisk.Mixed), s.possible)
			})
		}
	}
}

// One write or sync that fails, whatever the reason is, costs the log a segment:
// what it was to make durable is written in the next one. A segment that cannot
// be begun, for a reason that passes, is begun when the append is made again.
// Power cuts in between, before every change of the disk, lose nothing that was
// acknowledged.
func TestOneErrorFailsNoLog(t *testing.T) {
	passing := []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EACCES, unix.ENOSPC, unix.EDQUOT, unix.EINTR}
	any := append([]error{unix.EIO}, passing...)
	for _, c := range []struct {
		ops    faultdisk.Op
		errnos []error
	}{
		{faultdisk.Write | faultdisk.Datasync, any},
		{faultdisk.Open | faultdisk.Size | faultdisk.Prewrite | faultdisk.Rename, passing},
		{faultdisk.Remove, any},
		{faultdisk.SyncDir, []error{unix.EMFILE, unix.ENFILE, unix.EACCES, unix.ENOSPC, unix.EDQUOT}},
		{faultdisk.Allocate, passing},
	} {
		fired := 0 // with all seeds: a spare is made in the background, and may miss the errors of one
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("%v %d", c.ops, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 4))
				under := newDisk(t)
				faulty := faultdisk.New(under)
				s := &script{t: t, rng: rng, log: open(t, faulty), term: 1}
				s.now = contents(t, s.log)
				var image *crashdisk.FS
				crash := rand.New(rand.NewPCG(seed, 5))
				faulty.Inject(faultdisk.Rule{Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Rename | faultdisk.Remove | faultdisk.SyncDir,
					Before: func(faultdisk.Op, string) {
						if crash.IntN(10) == 0 {
							image = under.Crash(crash, crashdisk.Mixed)
						}
					}})
				for range 100 {
					image = nil
					errno := c.errnos[rng.IntN(len(c.errnos))]
					rule := faulty.Inject(faultdisk.Rule{Ops: c.ops, Skip: rng.IntN(3), Times: 1, Err: errno, Short: rng.Int64N(5000)})
					s.again = func(err error) bool {
						// What comes instead goes nowhere that a restart does not look.
						if s.hard != nil && rng.IntN(2) == 0 {
							if err := s.log.Append(Round{HardState: s.hard}); err != nil {
								t.Fatal(err)
							}
							check(t, under.Kill(), s.possible)
						}
						if !errors.Is(err, errno) || !strings.Contains(err.Error(), testDir) {
							t.Fatalf("%v is told as %v", errno, err)
						}
						return s.log.Err() == nil
					}
					if err := s.step(); err != nil {
						t.Fatal(err)
					}
					fired += rule.Fired()
					rule.Remove()
					if image != nil {
						check(t, image, s.possible)
					}
					if rng.IntN(10) == 0 {
						check(t, under.Crash(crash, crashdisk.Mixed), []model{s.now})
					}
				}
				if got := contents(t, s.log); !got.equal(s.now) {
					t.Fatal("the log holds something else")
				}
				if err := s.log.Close(); err != nil {
					t.Fatal(err)
				}
				check(t, under.Kill(), []model{s.now})
			})
		}
		if fired == 0 {
			t.Errorf("%v: no error was met", c.ops)
		}
	}
}

// What cannot be read is refused by name: no errno is the end of the log.
func TestUnreadableIsRefused(t *testing.T) {
	d := newDisk(t)
	l := open(t, d)
	for i := range uint64(60) {
		if err := l.Append(Round{Entries: []*pb.Entry{entry(2+i, 1, strings.Repeat("x", 1000))}}); err != nil {
			t.Fatal(err)
		}
	}
	want := contents(t, l)
	_ = l.Close()
	for _, errno := range []error{unix.EIO, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EACCES, unix.ENOSPC, unix.EINTR} {
		for _, op := range []faultdisk.Op{faultdisk.ReadDir, faultdisk.Open, faultdisk.Size, faultdisk.Read} {
			for turn := range 9 {
				image := d.Kill()
				faulty := faultdisk.New(image)
				rule := faulty.Inject(faultdisk.Rule{Ops: op, Skip: turn, Times: 1, Err: errno, Path: testDir + "/..."})
				got, err := Open(testOptions(faulty))
				if rule.Fired() == 0 {
					_ = got.Close()
					break
				}
				if !errors.Is(err, errno) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), testDir) {
					t.Fatalf("%v of call %d of %v: %v", errno, turn, op, err)
				}
				l := open(t, image)
				if !contents(t, l).equal(want) {
					t.Fatalf("%v of call %d of %v: the log holds something else afterwards", errno, turn, op)
				}
				_ = l.Close()
			}
		}
	}
}

// Of a file that has grown no more is read than was written to it; one of version
// 1, which does not say how much that is, is refused by name, unread. A spare that
// has grown is cut.
func TestGrownSegment(t *testing.T) {
	dir := t.TempDir()
	opt := testOptions(osdisk.New())
	opt.Dir = dir + "/log"
	l, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Close(), os.WriteFile(opt.Dir+"/spare", nil, 0o600), os.Truncate(opt.Dir+"/spare", 6<<30)); err != nil {
		t.Fatal(err)
	}
	if l, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	name := l.current.path
	if l.current.size > SegmentMax {
		t.Errorf("%s has %d bytes", name, l.current.size)
	}
	if err := errors.Join(l.Close(), os.Truncate(name, 6<<30)); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if l, err = Open(opt); err != nil {
		t.Fatal(err)
	}
	_, inspected := Inspect(opt.FS, name, func(Record) error { return nil })
	if err := errors.Join(l.Close(), inspected); err != nil {
		t.Error(err)
	}
	change(t, opt.FS, name, func(f disk.File) error {
		_, err := f.WriteAt(oldHeader(headerOf{Cluster: testCluster, Member: 7, Number: l.current.number - 1, Incarnation: 1}), 0)
		return err
	})
	_, opened := Open(opt)
	_, inspected = Inspect(opt.FS, name, func(Record) error { return nil })
	runtime.ReadMemStats(&after)
	for _, err := range []error{opened, inspected} {
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name+": 6442450944 bytes") {
			t.Error(err)
		}
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
		t.Errorf("it took %d bytes of memory to say so", took)
	}
}

// Every byte at or below the highest durable mark counts.
func TestDamage(t *testing.T) {
	d := newDisk(t)
	l := open(t, d)
	for i := range uint64(5) {
		if err := l.Append(Round{Entries: []*pb.Entry{entry(2+i, 1, strings.Repeat("x", 300))}, HardState: hardState(1, 7, 1+i)}); err != nil {
			t.Fatal(err)
		}
	}
	want := contents(t, l)
	end := l.pos
	name := l.current.path
	_ = l.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		image := d.Kill()
		f, err := image.OpenFile(name, disk.Write, 0)
		if err != nil {
			t.Fatal(err)
		}
		off := rng.Int64N(end)
		var b [1]byte
		_, _ = f.ReadAt(b[:], off)
		b[0] ^= 1 << rng.IntN(8)
		_, _ = f.WriteAt(b[:], off)
		_ = f.Close()
		l, err := Open(testOptions(image))
		if err == nil {
			if got := contents(t, l); !got.equal(want) {
				t.Fatalf("a flipped bit at %d changes the log", off)
			}
			_ = l.Close()
		} else if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) {
			t.Fatal(err)
		}
	}
	// A block that reads as zeros is damage too: the marks behind it tell.
	image := d.Kill()
	f, _ := image.OpenFile(name, disk.Write, 0)
	_, _ = f.WriteAt(make([]byte, blockSize), 3*blockSize)
	if _, err := Open(testOptions(image)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "offset 12288") {
		t.Fatalf("a lost block: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	d := newDisk(t)
	_ = open(t, d).Close()
	o := testOptions(d)
	o.Member = 8
	if _, err := Open(o); !errors.Is(err, ErrIdentity) {
		t.Errorf("another member: %v", err)
	}
	o = testOptions(d)
	o.Cluster[0]++
	if _, err := Open(o); !errors.Is(err, ErrIdentity) {
		t.Errorf("another cluster: %v", err)
	}
	o = testOptions(newDisk(t))
	o.Begin = Marker{}
	if _, err := Open(o); err == nil {
		t.Error("a log was made without a marker")
	}
}

func TestStorage(t *testing.T) {
	l := open(t, newDisk(t))
	if err := l.Append(Round{Entries: []*pb.Entry{entry(2, 1, "a"), entry(3, 2, "b"), entry(4, 2, "c")}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Compact(3, &pb.ConfState{Voters: []uint64{7, 8}}); err != nil {
		t.Fatal(err)
	}
	if term, err := l.Term(3); err != nil || term != 2 {
		t.Errorf("term at the marker: %d, %v", term, err)
	}
	if _, err := l.Term(2); !errors.Is(err, raft.ErrCompacted) {
		t.Errorf("term before the marker: %v", err)
	}
	if _, err := l.Entries(3, 5, 100); !errors.Is(err, raft.ErrCompacted) {
		t.Errorf("entries before the marker: %v", err)
	}
	if _, err := l.Entries(4, 6, 100); !errors.Is(err, raft.ErrUnavailable) {
		t.Errorf("entries behind the last: %v", err)
	}
	_, conf, _ := l.InitialState()
	if !slices.Equal(conf.Voters, []uint64{7, 8}) {
		t.Errorf("members: %v", conf)
	}
	if m := l.Marker(); m.Index != 3 || m.Term != 2 {
		t.Errorf("marker: %+v", m)
	}
}

// A batch of rounds costs one sync, and segments that hold nothing are used again.
func TestSyncsAndRecycling(t *testing.T) {
	d := faultdisk.New(newDisk(t))
	l := open(t, d)
	before := l.Syncs()
	var rounds []Round
	for i := range uint64(10) {
		rounds = append(rounds, Round{Entries: []*pb.Entry{entry(2+i, 1, "x")}})
	}
	if err := l.Append(rounds...); err != nil {
		t.Fatal(err)
	}
	if n := l.Syncs() - before; n != 1 {
		t.Errorf("%d syncs for a batch", n)
	}
	for i := range uint64(200) {
		if err := l.Append(Round{Entries: []*pb.Entry{entry(12+i, 1, strings.Repeat("y", 1000))}}); err != nil {
			t.Fatal(err)
		}
		if i%20 == 19 {
			if l.Behind(11+i) == 0 {
				t.Error("nothing lies behind")
			}
			if err := l.Compact(11+i, &pb.ConfState{Voters: []uint64{7}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	names, err := d.ReadDir(testDir)
	if err != nil || len(names) > 3 {
		t.Errorf("%v, %v", names, err)
	}
}
