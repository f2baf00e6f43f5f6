package writebuffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/format"
	"openvstorage/sco"
	"openvstorage/tlog"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// TestRecover runs testdata/recover.txt, which tells what its commands do.
func TestRecover(t *testing.T) {
	text, err := os.ReadFile("testdata/recover.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range strings.Split(string(text), "\n== ")[1:] {
		title, lines, _ := strings.Cut(script, "\n")
		t.Run(title, func(t *testing.T) {
			s := &scriptRun{rig: prepareRig(t, crashdisk.New(), newVolume(testVolume)), saved: map[string][]byte{}}
			// A first SCO that is not pre-written would be left at its first
			// commit, and the scripts name places.
			s.untilPrewritten()
			s.openLog()
			for line := range strings.Lines(lines) {
				line, _, _ = strings.Cut(line, "#")
				words := strings.Fields(line)
				if len(words) == 0 {
					continue
				}
				s.line = strings.TrimSpace(line)
				s.run(words[0], words[1:], strings.TrimSpace(strings.TrimPrefix(s.line, words[0])))
			}
		})
	}
}

// scriptRun is one script at work.
type scriptRun struct {
	*rig
	line  string
	saved map[string][]byte
}

func (s *scriptRun) fatal(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s: %s", s.line, fmt.Sprintf(format, args...))
}

func (s *scriptRun) must(err error) {
	s.t.Helper()
	if err != nil {
		s.fatal("%v", err)
	}
}

func (s *scriptRun) number(word string) uint64 {
	if block, ok := strings.CutPrefix(word, "@"); ok {
		return s.number(block) * clusterSize
	}
	n, err := strconv.ParseUint(word, 10, 64)
	s.must(err)
	return n
}

// file is the path of "sco-1", "tlog-2".
func (s *scriptRun) file(word string) string {
	kind, n, _ := strings.Cut(word, "-")
	name := sco.Number(s.number(n)).Name()
	if kind == "tlog" {
		name = tlog.ID(s.number(n)).Name()
	}
	return path.Join("/buffer", s.vol.id.String(), name)
}

// change rewrites a file of the image.
func (s *scriptRun) change(name string, do func(b []byte) []byte) {
	b, err := readFile(s.under, name)
	if err != nil && do != nil && s.saved[name] == nil {
		s.must(err)
	}
	f, err := s.under.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o644)
	s.must(err)
	_, err = f.WriteAt(do(b), 0)
	s.must(errors.Join(err, f.Close()))
}

func (s *scriptRun) run(command string, args []string, rest string) {
	n := func(i int) uint64 { return s.number(args[i]) }
	switch command {
	case "write":
		s.write(n(0), int(n(1)), n(2))
	case "refused":
		rule := s.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: args[0] + "-*", Err: unix.EIO, Short: int64(n(1)), Times: 1})
		s.disk.Inject(faultdisk.Rule{Ops: faultdisk.Truncate, Path: args[0] + "-*", Err: unix.EIO, Times: 1})
		if err := s.log.Append(s.ctx, batch(n(2), 1, 99)); !errors.Is(err, unix.EIO) {
			s.fatal("%v", err)
		}
		rule.Remove()
	case "trim":
		_, err := s.log.AppendEntry(s.ctx, tlog.Entry{Kind: tlog.KindTrim, Addr: n(0), Run: uint32(n(1))})
		s.must(err)
	case "commit":
		s.commit()
	case "close":
		s.log.CloseTLog()
	case "holdsync":
		gate := faultdisk.NewGate()
		s.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Before: gate.Wait})
		s.t.Cleanup(gate.Open)
	case "recycle":
		s.storeAll()
		for s.buf.pool.evict(true) {
		}
	case "kill", "cut":
		s.untilReady()
		image := s.under.Kill()
		if command == "cut" {
			image = s.under.Crash(rand.New(rand.NewPCG(1, 1)), crashdisk.LoseAll)
		}
		s.rig = prepareRig(s.t, image, s.vol.copy())
	case "damage":
		s.change(s.file(args[0]), func(b []byte) []byte { b[n(1)] ^= 0x41; return b })
	case "truncate":
		s.change(s.file(args[0]), func(b []byte) []byte { return b[:n(1)] })
	case "shorten":
		s.change(s.file(args[0]), func(b []byte) []byte { return b[:len(b)-int(n(1))] })
	case "remove":
		s.must(s.under.Remove(s.file(args[0])))
	case "copy":
		b, err := readFile(s.under, s.file(args[0]))
		s.must(err)
		s.saved[s.file(args[1])] = b
		s.change(s.file(args[1]), func([]byte) []byte { return b })
	case "save":
		b, err := readFile(s.under, s.file(args[0]))
		s.must(err)
		s.saved[s.file(args[0])] = b
	case "restore":
		s.change(s.file(args[0]), func([]byte) []byte { return s.saved[s.file(args[0])] })
	case "forge":
		s.change(s.file(args[0]), func(b []byte) []byte {
			return rewrite(b, func(e *tlog.Entry) bool {
				if e.Seq == n(1) && e.Kind.Ordered() {
					e.Addr = n(2)
				}
				return true
			})
		})
	case "unmark":
		s.change(s.file(args[0]), func(b []byte) []byte {
			return rewrite(b, func(e *tlog.Entry) bool { return e.Kind != tlog.KindDurable || e.Seq < n(1) })
		})
	default:
		s.expect(command, args, rest)
	}
}

// rewrite writes a TLog again with what do makes of its entries; false leaves
// one out.
func rewrite(b []byte, do func(e *tlog.Entry) bool) []byte {
	h, err := tlog.DecodeHeader(b)
	if err != nil {
		panic(err)
	}
	out := tlog.AppendHeader(nil, h)
	_, _, _, err = tlog.Scan(b, func(_ int64, e tlog.Entry) error {
		if do(&e) {
			out = tlog.AppendEntry(out, tlog.SeedOf(h.Incarnation), e)
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
	return out
}

func (s *scriptRun) expect(command string, args []string, rest string) {
	f := s.found
	switch command {
	case "reaches":
		found, err := s.buf.Recover(s.vol.recoverOptions())
		s.must(err)
		s.found = found
		if found.Reached != s.number(args[0]) || args[2] != "any" && found.Durable != s.number(args[2]) {
			s.fatal("reached %d, durable %d; cut %q, damage %v", found.Reached, found.Durable, found.Cut, found.Damage)
		}
		for i, e := range found.Entries {
			if e.Seq != s.vol.stored+uint64(i)+1 {
				s.fatal("entry %d has seq %d", i, e.Seq)
			}
		}
	case "uncut":
		if f.Cut != "" || f.Damage != nil || f.Incomplete {
			s.fatal("cut %q, damage %v", f.Cut, f.Damage)
		}
	case "cut-because":
		if !strings.Contains(f.Cut, rest) || f.Damage != nil {
			s.fatal("cut %q, damage %v", f.Cut, f.Damage)
		}
	case "damaged":
		if f.Damage == nil || f.Incomplete || !strings.Contains(f.Damage.Error(), rest) {
			s.fatal("damage %v, incomplete %v", f.Damage, f.Incomplete)
		}
	case "incomplete":
		if f.Damage == nil || !f.Incomplete || !strings.Contains(f.Damage.Error(), rest) {
			s.fatal("damage %v, incomplete %v", f.Damage, f.Incomplete)
		}
	case "next":
		if f.NextSCO != sco.Number(s.number(args[0])) || f.NextTLog != tlog.ID(s.number(args[1])) {
			s.fatal("next SCO %d, next TLog %d", f.NextSCO, f.NextTLog)
		}
	case "resume":
		s.resume(f)
	case "inspect":
		s.inspect()
	case "reads":
		s.check(s.number(args[0]), int(s.number(args[1])), s.number(args[2]))
	case "absent":
		s.absent(s.number(args[0]))
	case "fails":
		loc, _ := s.vol.at(s.number(args[0]))
		found, err := s.log.Read(loc, make([]byte, clusterSize), true)
		if want := strings.TrimSpace(strings.TrimPrefix(rest, args[0])); found && (err == nil || !strings.Contains(err.Error(), want)) || !found && want != "" {
			s.fatal("found %v, %v", found, err)
		}
	default:
		s.fatal("no such command")
	}
}

// inspect opens what is damaged for reading, as the volume does, and sees that
// no file changes.
func (s *scriptRun) inspect() {
	s.t.Helper()
	before := s.listing()
	s.vol.reset(s.vol.stored + 1)
	for _, e := range s.found.Entries {
		s.must(replay(s.vol, e))
	}
	log, err := s.buf.OpenLog(s.logOptions(s.found.Reached+1, s.found.NextSCO, s.found.NextTLog))
	s.must(err)
	s.log = log
	log.Inspect(s.found)
	log.Fail(s.found.Damage)
	s.t.Cleanup(func() {
		if err := log.Close(nil); err != nil {
			s.t.Error(err)
		}
		if after := s.listing(); after != before {
			s.t.Errorf("files of a damaged vDisk have changed:\n%s\n%s", before, after)
		}
	})
}

// listing tells the vDisk's files and what they hold.
func (s *scriptRun) listing() string {
	var out strings.Builder
	dir := path.Join("/buffer", s.vol.id.String())
	names, err := s.under.ReadDir(dir)
	s.must(err)
	for _, name := range names {
		b, err := readFile(s.under, path.Join(dir, name))
		s.must(err)
		fmt.Fprintf(&out, "%s %d %08x; ", name, len(b), format.CRC(b))
	}
	return out.String()
}

// Files of a newer release are refused by name, and stay as they are (P7).
func TestRecoverNewer(t *testing.T) {
	put := binary.LittleEndian.PutUint32
	header := func(b []byte) {
		binary.LittleEndian.PutUint16(b[12:], 2)
		put(b[60:], format.CRC(b[:60]))
	}
	for name, c := range map[string]struct {
		file   string
		change func(b []byte)
	}{
		"SCO":  {"sco-1", header},
		"TLog": {"tlog-1", header},
		"commit block": {"sco-1", func(b []byte) {
			at := sco.ClusterSize
			for !sco.IsCommit(b[at:]) {
				at += sco.ClusterSize
			}
			b[at+56] = 16 // clusters of 64 KiB
			put(b[at+4:], format.SeededCRC(binary.LittleEndian.Uint64(b[48:]), b[at+8:at+64+int(binary.LittleEndian.Uint32(b[at+8:]))]))
		}},
		"trailer": {"sco-1", func(b []byte) {
			h, err := sco.DecodeHeader(b)
			if err != nil {
				t.Fatal(err)
			}
			footer := sco.AppendFooter(nil, h, sco.Blocks{Sums: make([]uint32, 1), Addrs: make([]uint64, 1), Seqs: []uint64{1}}, 1, len(b)/sco.ClusterSize-1)
			tail := footer[len(footer)-sco.TrailerSize:]
			put(tail[68:], 1) // an incompatible feature
			put(tail[124:], format.SeededCRC(h.Incarnation, tail[:124]))
			copy(b[len(b)-len(footer):], footer)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scriptRun{rig: newRig(t)}
			s.rig.write(1, 1, 1)
			s.commit()
			s.run("kill", nil, "")
			s.change(s.file(c.file), func(b []byte) []byte {
				c.change(b)
				return b
			})
			before := s.listing()
			_, err := s.buf.Recover(s.vol.recoverOptions())
			if !errors.Is(err, format.ErrNewer) || !strings.Contains(err.Error(), s.file(c.file)) {
				t.Errorf("%v", err)
			}
			if s.listing() != before {
				t.Error("files have changed")
			}
		})
	}
}

// An error of the disk is no damage: nothing is decided on it.
func TestRecoverReadError(t *testing.T) {
	for _, pattern := range []string{"sco-*", "tlog-*"} {
		for skip := range 3 {
			s := &scriptRun{rig: newRig(t)}
			s.rig.write(1, 1, 1)
			s.commit()
			s.run("kill", nil, "")
			rule := s.disk.Inject(faultdisk.Rule{Ops: faultdisk.Read, Path: pattern, Err: unix.EIO, Skip: skip, Times: 1})
			found, err := s.buf.Recover(s.vol.recoverOptions())
			if rule.Fired() == 1 && !errors.Is(err, unix.EIO) {
				t.Errorf("%s, read %d: %v", pattern, skip, err)
			}
			if err == nil {
				s.must(found.Release())
			}
		}
	}
}

func TestLocalTLog(t *testing.T) {
	r := newRig(t)
	r.write(1, 1, 1)
	r.write(2, 1, 1)
	r.log.CloseTLog()
	id, opt := r.vol.closed[0], r.vol.recoverOptions()
	entries, err := r.buf.LocalTLog(opt, id, 2)
	if err != nil || len(entries) != 2 || entries[0].Addr != 1 || entries[1].Sum(0) != sco.Sum(data(2, 1, 1)) {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := r.buf.LocalTLog(opt, id, 3); !errors.Is(err, tlog.ErrCorrupt) {
		t.Errorf("cut short: %v", err)
	}
	if _, err := r.buf.LocalTLog(opt, id+7, 2); !errors.Is(err, unix.ENOENT) {
		t.Errorf("not there: %v", err)
	}
	opt.Volume = uuid.New()
	if _, err := r.buf.LocalTLog(opt, id, 2); err == nil {
		t.Error("of another vDisk")
	}
}

// Whatever the catalog knows of a TLog, every SCO that its entries name goes
// with it (O3): also when it closes because a write to it failed.
func TestTLogNamesItsSCOs(t *testing.T) {
	r := newRig(t)
	r.write(1, 1, 1)
	r.untilReady()
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Write, Path: "tlog-*", Err: unix.EIO, Times: 1})
	mustBe(t, r.log.Append(r.ctx, batch(2, 1, 1)), unix.EIO)
	r.write(3, 1, 1)
	r.commit()
	w := r.log.Work()
	for _, tl := range w.TLogs {
		b, err := tl.Object(r.log)
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = tlog.Scan(b, func(_ int64, e tlog.Entry) error {
			if e.Kind != tlog.KindWrite {
				return nil
			}
			for _, s := range tl.SCOs() {
				if s.Number == e.Location.Number() {
					return nil
				}
			}
			return fmt.Errorf("seq %d of %s is in %s, which is not among its SCOs", e.Seq, tl.ID.Name(), e.Location.Number().Name())
		})
		if err != nil {
			t.Error(err)
		}
		r.vol.stored = tl.LastSeq
		r.vol.keep[tl.ID] = true
		r.log.Stored(tl.ID, nil)
	}
	// What the catalog has is either stored or still here.
	next := r.kill()
	for _, addr := range []uint64{1, 3} {
		loc, _ := r.vol.at(addr)
		if r.vol.when[addr] <= r.vol.stored && len(w.SCOs) == 0 && !next.log.Has(loc.Number()) {
			t.Errorf("cluster %d was never uploaded and is gone from the buffer", addr)
		}
	}
}

// Recover, OpenLog, Resume again and again: nothing is lost, numbers grow.
func TestManyRestarts(t *testing.T) {
	for seed := range uint64(8) {
		r := newRig(t)
		rng := rand.New(rand.NewPCG(seed, 7))
		model := map[uint64]uint64{}
		var last sco.Number
		for i := range uint64(5) { // what is not stored must fit the buffer
			for k := range uint64(4) {
				addr := rng.Uint64N(50)
				r.write(addr, 3, i*10+k)
				for c := range uint64(3) {
					model[addr+c] = i*10 + k
				}
				if rng.IntN(3) == 0 {
					r.commit()
				}
			}
			if rng.IntN(3) == 0 {
				r.log.CloseTLog()
			}
			n, _ := r.log.Numbers()
			if n < last {
				t.Fatalf("seed %d: next SCO %d, it was %d before", seed, n, last)
			}
			last = n
			if rng.IntN(2) == 0 {
				r = r.kill()
			} else {
				r.commit()
				r = r.cut(crashdisk.Mixed)
			}
			for addr, v := range model {
				r.check(addr, 1, v)
			}
		}
	}
}

// An SCO of commit blocks alone has no object that would sync it. That it
// leaves the buffer must not halt the log.
func TestEmptySCOLeaves(t *testing.T) {
	r := newRig(t)
	gate := faultdisk.NewGate()
	defer gate.Open()
	r.disk.Inject(faultdisk.Rule{Ops: faultdisk.Datasync, Path: "sco-*", Times: 1, Before: gate.Wait})
	r.write(1, 1, 1)
	r.log.CloseTLog() // the background waits in the sync of this SCO
	<-gate.Arrived()
	if _, err := r.log.AppendEntry(r.ctx, tlog.Entry{Kind: tlog.KindTrim, Addr: 1, Run: 1}); err != nil {
		t.Fatal(err)
	}
	r.log.CloseTLog()
	w := r.log.Work()
	if len(w.SCOs) != 2 || !w.SCOs[1].Empty() {
		t.Skip("a trim alone makes no SCO")
	}
	stored := make(chan error, 1)
	go func() {
		_, err := w.SCOs[0].Object(nil, nil) // waits for the same sync
		stored <- err
	}()
	gate.Open()
	if err := r.wait(stored); err != nil {
		t.Fatal(err)
	}
	for _, tl := range w.TLogs {
		if _, err := tl.Object(r.log); err != nil {
			t.Fatal(err)
		}
		r.log.Stored(tl.ID, nil)
	}
	for r.buf.pool.evict(true) {
	}
	r.write(2, 1, 1)
	r.commit()
	if err := r.log.Err(); err != nil {
		t.Errorf("the log halted: %v", err)
	}
}

// A flush that finds its TLog closed, as a snapshot leaves it, says in the next one
// what is durable, whether or not that one was there already: without, a restart
// would take damage of what was flushed for the end of the log.
func TestFlushBehindClosedTLog(t *testing.T) {
	for _, ready := range []bool{true, false} {
		r := newRig(t)
		r.write(1, 1, 1)
		r.commit()
		r.write(2, 1, 2)
		if ready {
			r.untilReady()
		}
		if !r.log.CloseTLog() {
			t.Fatal("there was nothing to close")
		}
		r.commit()
		r.untilReady()
		after := prepareRig(t, r.under.Kill(), r.vol.copy())
		found, err := after.buf.Recover(after.vol.recoverOptions())
		if err != nil || found.Damage != nil {
			t.Fatal(err, found.Damage)
		}
		if found.Reached != r.log.Written() || found.Durable != r.log.Written() {
			t.Errorf("ready %v: reached %d, durable to %d of %d", ready, found.Reached, found.Durable, r.log.Written())
		}
		if err := found.Release(); err != nil {
			t.Error(err)
		}
	}
}
