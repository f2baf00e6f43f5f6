package stamp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestStampRoundTrip(t *testing.T) {
	p := make([]byte, 3*SectorSize)
	Fill(p, Stamp{Run: 7, Seq: 9, Writer: 2, First: 100})
	for i := range uint64(3) {
		got, err := Decode(p[i*SectorSize : (i+1)*SectorSize])
		want := Stamp{Run: 7, Sector: 100 + i, Seq: 9, Writer: 2, Count: 3, First: 100}
		if err != nil || got != want {
			t.Errorf("sector %d: %+v, %v; want %+v", i, got, err, want)
		}
	}
	for bit := range SectorSize * 8 {
		flipped := bytes.Clone(p[:SectorSize])
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := Decode(flipped); !errors.Is(err, ErrNotStamp) {
			t.Fatalf("bit %d flipped: %v, want ErrNotStamp", bit, err)
		}
	}
	if got, err := Decode(make([]byte, SectorSize)); err != nil || got != (Stamp{}) {
		t.Errorf("zeros: %+v, %v", got, err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(record{kind: kindIssue, flags: flagFUA, writer: 3, count: 8, first: 77, seq: 5}.append(nil))
	f.Add(make([]byte, recordSize))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := decodeRecord(p)
		if err == nil && !bytes.Equal(r.append(nil), p[:recordSize]) {
			t.Fatalf("%+v does not encode to what it was decoded from", r)
		}
	})
}

// TestHonestServer kills and restarts an honest device many times, with a log that is
// reopened each time: the check must never accuse the device.
func TestHonestServer(t *testing.T) {
	const size = 32 << 20
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	name := filepath.Join(t.TempDir(), "log")
	l, err := CreateLog(name, seed, size)
	if err != nil {
		t.Fatal(err)
	}
	d, h := newFake(size), NewHistory()
	for round := range uint64(5) {
		d.alive.Store(2000)
		stats, err := Run(t.Context(), Options{Log: l, Conns: []Conn{d, d, d, d}, Seed: seed + round})
		if !errors.Is(err, errGone) {
			t.Fatalf("run: %+v, %v; want the server gone", stats, err)
		}
		if err := h.Catch(name); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(t.Context(), h, l, VerifyOptions{Full: round == 4, PowerCut: round%2 == 1, Conns: []Reading{d, d}})
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if r.Acked != int(stats.Acked) || r.Present < r.Acked/4 {
			t.Errorf("round %d: %d present, %d acknowledged of %d, the client counted %d", round, r.Present, r.Acked, r.Issued, stats.Acked)
		}
		l.Close()
		if l, err = OpenLog(name); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
}

// TestLyingServer runs the whole client against devices that lie about their last
// write. The check must find out each of them.
func TestLyingServer(t *testing.T) {
	tests := []struct {
		name string
		lie  func(f *fake, p []byte, off int64)
		want []Fault
	}{
		{"drops a write", func(*fake, []byte, int64) {}, []Fault{Lost}},
		{"drops the end of a write", func(f *fake, p []byte, off int64) {
			copy(f.p[off:], p[:len(p)-SectorSize])
		}, []Fault{Lost}},
		{"flips a bit", func(f *fake, p []byte, off int64) {
			copy(f.p[off:], p)
			f.p[off+99] ^= 4
		}, []Fault{Corrupt}},
		{"writes elsewhere", func(f *fake, p []byte, off int64) {
			copy(f.p[(off+int64(len(f.p))/2)%int64(len(f.p)):], p)
		}, []Fault{Misplaced, Lost}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const size = 32 << 20
			l, err := CreateLog(filepath.Join(t.TempDir(), "log"), 1, size)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			d, h := newFake(size), NewHistory()
			writes := 0
			d.lie = func(f *fake, p []byte, off int64) bool {
				if writes++; writes < 2000 {
					return false
				}
				tt.lie(f, p, off)
				f.alive.Store(0) // before anything covers it up
				return true
			}
			if _, err := Run(t.Context(), Options{Log: l, Conns: []Conn{d, d}, Depth: 2, Seed: 4}); !errors.Is(err, errGone) {
				t.Fatal(err)
			}
			if err := h.Catch(l.Name()); err != nil {
				t.Fatal(err)
			}
			r, err := Verify(t.Context(), h, l, VerifyOptions{Full: true, Conns: []Reading{d}})
			if err != nil {
				t.Fatal(err)
			}
			if r.Faults == 0 || !slices.ContainsFunc(r.Findings, func(f Finding) bool { return slices.Contains(tt.want, f.Fault) }) {
				t.Errorf("found %v, want one of %v", r.Err(), tt.want)
			}
		})
	}
}

// TestCheck is the checker's definition: what it accuses of and what not.
func TestCheck(t *testing.T) {
	const none = Fault("")
	tests := []struct {
		name     string
		powerCut bool
		want     Fault
		do       func(s *script)
	}{
		{"acknowledged and there", false, none, func(s *script) { s.write(0, 8) }},
		{"never acknowledged, absent", false, none, func(s *script) { s.issue(0, 8) }},
		{"never acknowledged, there", false, none, func(s *script) { s.apply(s.issue(0, 8), 0, 8, 0, 8) }},
		{"never acknowledged, some of its clusters there", false, none, func(s *script) {
			s.apply(s.issue(0, 16), 0, 16, 8, 16)
		}},
		{"never acknowledged, half a cluster there", false, Torn, func(s *script) {
			s.apply(s.issue(0, 8), 0, 8, 0, 4)
		}},
		{"acknowledged and absent", false, Lost, func(s *script) {
			s.must(s.l.ack(s.issue(0, 8)))
		}},
		{"overwritten by a later one", false, none, func(s *script) { s.write(0, 8); s.write(4, 8) }},
		{"the older of two acknowledged", false, Lost, func(s *script) {
			a := s.write(0, 8)
			s.write(0, 8)
			s.apply(a, 0, 8, 0, 8)
		}},
		{"two in flight, the first won", false, none, func(s *script) {
			a, b := s.issue(0, 8), s.issue(0, 8)
			s.apply(a, 0, 8, 0, 8)
			s.must(s.l.ack(b))
			s.must(s.l.ack(a))
		}},
		{"two in flight, mixed in one cluster", false, Torn, func(s *script) {
			a, b := s.issue(0, 8), s.issue(0, 8)
			s.apply(a, 0, 8, 0, 8)
			s.apply(b, 0, 8, 4, 8)
			s.must(s.l.ack(b))
			s.must(s.l.ack(a))
		}},
		{"two in flight, the shorter one over the longer", false, none, func(s *script) {
			a, b := s.issue(0, 8), s.issue(2, 2)
			s.apply(a, 0, 8, 0, 8)
			s.apply(b, 2, 2, 2, 4)
			s.must(s.l.ack(b))
			s.must(s.l.ack(a))
		}},
		{"four in flight, a circle", false, Torn, func(s *script) {
			a, b, c, d := s.issue(0, 4), s.issue(2, 4), s.issue(4, 4), s.issue(0, 8)
			s.apply(a, 0, 4, 0, 4)
			s.apply(b, 2, 4, 4, 6)
			s.apply(c, 4, 4, 6, 7) // d came before a, b and c
			s.apply(d, 0, 8, 7, 8) // and after c
			for _, seq := range []uint64{a, b, c, d} {
				s.must(s.l.ack(seq))
			}
		}},
		{"seen, then gone", false, Lost, func(s *script) {
			s.apply(s.issue(0, 8), 0, 8, 0, 8) // never acknowledged
			s.must(s.verify(false).Err())
			clear(s.d.p[:8*SectorSize])
		}},
		{"seen, then an older one is back", false, Stale, func(s *script) {
			a := s.write(0, 8)
			s.write(0, 8)
			s.must(s.verify(false).Err())
			s.apply(a, 0, 8, 0, 8)
		}},
		{"not seen, then there", false, Stale, func(s *script) {
			a := s.issue(0, 8)
			s.must(s.verify(false).Err())
			s.apply(a, 0, 8, 0, 8)
		}},
		{"of another run", false, Foreign, func(s *script) {
			p := make([]byte, SectorSize)
			Fill(p, Stamp{Run: 1, Seq: 1, First: 0})
			copy(s.d.p, p)
		}},
		{"never issued", false, Foreign, func(s *script) { s.apply(1000, 0, 8, 0, 8) }},
		{"at another address", false, Misplaced, func(s *script) {
			s.write(0, 8)
			copy(s.d.p[64*SectorSize:], s.d.p[:8*SectorSize])
		}},
		{"half a sector", false, Corrupt, func(s *script) {
			s.write(0, 8)
			clear(s.d.p[100:SectorSize])
		}},

		{"cut: not flushed, absent", true, none, func(s *script) { s.must(s.l.ack(s.issue(0, 8))) }},
		{"cut: flushed, absent", true, Lost, func(s *script) {
			s.must(s.l.ack(s.issue(0, 8)))
			s.flush()
		}},
		{"cut: acknowledged after the flush was sent, absent", true, none, func(s *script) {
			a := s.issue(0, 8)
			f, err := s.l.flush()
			s.must(err)
			s.must(s.l.ack(a))
			s.must(s.l.flushed(f))
		}},
		{"cut: flush not acknowledged, absent", true, none, func(s *script) {
			s.must(s.l.ack(s.issue(0, 8)))
			_, err := s.l.flush()
			s.must(err)
		}},
		{"cut: FUA, absent", true, Lost, func(s *script) { s.must(s.l.ack(s.issue(0, 8, true))) }},
		{"cut: before a FUA write, absent", true, Lost, func(s *script) {
			s.must(s.l.ack(s.issue(0, 8)))
			s.write(8, 8, true)
		}},
		{"cut: a prefix", true, none, func(s *script) {
			s.write(0, 8)
			s.must(s.l.ack(s.issue(8, 8)))
		}},
		{"cut: not a prefix", true, Reordered, func(s *script) {
			s.must(s.l.ack(s.issue(0, 8)))
			s.write(800, 8)
		}},
		{"cut: the later of two in flight", true, none, func(s *script) {
			a, b := s.issue(0, 8), s.issue(800, 8)
			s.apply(b, 800, 8, 800, 808)
			s.must(s.l.ack(a))
			s.must(s.l.ack(b))
		}},
		{"cut: flushed and overwritten, the older one there", true, none, func(s *script) {
			a := s.write(0, 8)
			s.flush()
			s.write(0, 8)
			s.apply(a, 0, 8, 0, 8)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			tt.do(s)
			r := s.verify(tt.powerCut)
			switch {
			case tt.want == none && r.Faults != 0:
				t.Errorf("accused: %v", r.Err())
			case tt.want != none && (r.Faults == 0 || r.Findings[0].Fault != tt.want):
				t.Errorf("found %v, want %s", r.Err(), tt.want)
			}
		})
	}
}

// TestSeenIsPrecise: a second check right after one without faults finds nothing
// either, and counts nothing as issued.
func TestSeenIsPrecise(t *testing.T) {
	s := newScript(t)
	s.write(3, 20)
	s.apply(s.issue(40, 16), 40, 16, 48, 56)
	s.must(s.verify(false).Err())
	if r := s.verify(false); r.Err() != nil || r.Issued != 0 {
		t.Errorf("second check: %d issued, %v", r.Issued, r.Err())
	}
}

func TestLogCutsATornRecord(t *testing.T) {
	s := newScript(t)
	s.write(0, 8)
	s.must(s.l.Close())
	f, err := os.OpenFile(s.l.Name(), os.O_APPEND|os.O_WRONLY, 0)
	s.must(err)
	_, err = f.Write([]byte("half a record"))
	s.must(err)
	s.must(f.Close())
	s.l, err = OpenLog(s.l.Name())
	s.must(err)
	if seq := s.write(8, 8); seq != 3 {
		t.Errorf("the next write is %d, want 3", seq)
	}
	s.must(s.verify(false).Err())
}

func TestLogRefusesDamage(t *testing.T) {
	s := newScript(t)
	s.write(0, 8)
	for _, at := range []int64{0, recordSize + 5} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			p, err := os.ReadFile(s.l.Name())
			s.must(err)
			p[at] ^= 1
			name := filepath.Join(t.TempDir(), "log")
			s.must(os.WriteFile(name, p, 0o644))
			if err := NewHistory().Catch(name); !errors.Is(err, errBadRecord) {
				t.Errorf("got %v, want errBadRecord", err)
			}
		})
	}
}
