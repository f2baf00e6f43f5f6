package crashdisk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"openvstorage/internal/disk"
)

// states is the plain model of one file: every content since the last sync.
type states [][]byte

func (s states) newest() []byte { return s[len(s)-1] }

// allows reports whether a file may hold got after a power cut: a size that it
// had, and in every sector what the sector held in one of the states.
func (s states) allows(got []byte, torn bool) error {
	if !slices.ContainsFunc(s, func(c []byte) bool { return len(c) == len(got) }) {
		return fmt.Errorf("size %d was never the file's", len(got))
	}
	for at := 0; at < len(got); at += sectorSize {
		n := min(sectorSize, len(got)-at)
		if !s.sector(at, got[at:at+n], torn) {
			return fmt.Errorf("sector at %d was never like this", at)
		}
	}
	return nil
}

func (s states) sector(at int, got []byte, torn bool) bool {
	for i, c := range s {
		now := padded(c, at, len(got))
		if bytes.Equal(now, got) {
			return true
		}
		for j := range i {
			if !torn {
				break
			}
			before := padded(s[j], at, len(got))
			k := 0
			for k < len(got) && now[k] == got[k] {
				k++
			}
			if bytes.Equal(before[k:], got[k:]) {
				return true
			}
		}
	}
	return false
}

func padded(c []byte, at, n int) []byte {
	p := make([]byte, n)
	if at < len(c) {
		copy(p, c[at:])
	}
	return p
}

func TestRandomFileAgainstModel(t *testing.T) {
	options := []Options{KeepAll, LoseAll, Mixed, Torn, {}}
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		d := New()
		f, err := d.OpenFile("/f", disk.Write|disk.Create, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		d.SyncDir("/")
		model := states{nil}
		for range 40 {
			model = step(t, rng, f.(*File), model)
			got, err := readFile(d, "/f")
			if err != nil || !bytes.Equal(got, model.newest()) {
				t.Fatalf("seed %d: read differs from what was written (%v)", seed, err)
			}
			if rng.IntN(4) > 0 {
				continue
			}
			opt := options[rng.IntN(len(options))]
			image := d.Crash(rng, opt)
			left, err := readFile(image, "/f")
			if err != nil {
				t.Fatal(err)
			}
			if err := model.allows(left, opt.Torn); err != nil {
				t.Fatalf("seed %d: %v: %v", seed, opt, err)
			}
			if opt == KeepAll && !bytes.Equal(left, model.newest()) || opt == LoseAll && !bytes.Equal(left, model[0]) {
				t.Fatalf("seed %d: %v: not the extreme", seed, opt)
			}
			switch rng.IntN(4) {
			case 0: // go on with the image
				d, model = image, states{left}
			case 1:
				d = d.Kill()
			}
			if f, err = d.OpenFile("/f", disk.Write, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// step does something to f and adds the state it leads to. No sector gets more
// versions than the disk remembers, or KeepAll and LoseAll would be all that
// could be checked.
func step(t *testing.T, rng *rand.Rand, f *File, model states) states {
	c := slices.Clone(model.newest())
	off, n := rng.IntN(3*chunkSize), 1+rng.IntN(chunkSize+chunkSize/2)
	if rng.IntN(3) == 0 { // a small one at the end
		off, n = len(c), 1+rng.IntN(700)
	}
	var err error
	switch kind := rng.IntN(9); {
	case kind == 0:
		err = f.Truncate(int64(off))
		c = append(c, make([]byte, max(0, off-len(c)))...)[:off]
	case kind == 1 || len(model) > maxVersions/2:
		return append(states{}, c)[:1:1].synced(f.Datasync(), t)
	case kind == 2:
		err = f.Prewrite(int64(off), int64(n))
		return states{overwrite(c, make([]byte, n), off)}.synced(err, t)
	default:
		p := bytes.Repeat([]byte{byte(rng.IntN(4))}, n) // zeros among them
		_, err = f.WriteAt(p, int64(off))
		c = overwrite(c, p, off)
	}
	if err != nil {
		t.Fatal(err)
	}
	return append(model, c)
}

func (s states) synced(err error, t *testing.T) states {
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func overwrite(c, p []byte, off int) []byte {
	c = append(c, make([]byte, max(0, off+len(p)-len(c)))...)
	copy(c[off:], p)
	return c
}

// The names of a directory after a power cut are those that some number of
// first changes since its last sync had led to.
func TestRandomNamesAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 9))
		d := New()
		d.MkdirAll("/x", 0o755)
		d.MkdirAll("/y", 0o755)
		d.SyncDir("/")
		// Each file holds its own number, so that a file in both directories,
		// or one lost in a rename, shows.
		next, history := 0, [][]string{listing(t, d)}
		for range 25 {
			from, to := randomName(rng), randomName(rng)
			switch rng.IntN(5) {
			case 0, 1:
				f, err := d.OpenFile(from, disk.Write|disk.Create|disk.Exclusive, 0o644)
				if err != nil {
					continue
				}
				next++
				f.WriteAt(fmt.Appendf(nil, "%d", next), 0)
				f.Datasync()
			case 2:
				if d.Remove(from) != nil {
					continue
				}
			case 3:
				if d.Rename(from, to) != nil {
					continue
				}
			case 4:
				d.SyncDir("/x")
				d.SyncDir("/y")
				history = nil
			}
			history = append(history, listing(t, d))
			for _, opt := range []Options{KeepAll, LoseAll, Mixed} {
				got := listing(t, d.Crash(rng, opt))
				if !possible(history, got) {
					t.Fatalf("seed %d: %q after a power cut, of %q", seed, got, history)
				}
			}
		}
	}
}

func randomName(rng *rand.Rand) string {
	return "/" + string("xy"[rng.IntN(2)]) + "/" + string("abc"[rng.IntN(3)])
}

// listing returns "x/a 5" for every file, sorted.
func listing(t *testing.T, d *FS) []string {
	t.Helper()
	list := []string{}
	for _, dir := range []string{"x", "y"} {
		names, err := d.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			content, err := readFile(d, dir+"/"+n)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, dir+"/"+n+" "+string(content))
		}
	}
	return list
}

// possible reports whether each directory is as in some state, and the two
// agree about renames: no file is in both, and no file is in neither that no
// state lacks.
func possible(history [][]string, got []string) bool {
	part := func(list []string, dir byte) []string {
		p := []string{}
		for _, e := range list {
			if e[0] == dir {
				p = append(p, e)
			}
		}
		return p
	}
	for _, dir := range []byte("xy") {
		if !slices.ContainsFunc(history, func(h []string) bool { return slices.Equal(part(h, dir), part(got, dir)) }) {
			return false
		}
	}
	seen := map[string]int{}
	for _, e := range got {
		seen[e[4:]]++
		if seen[e[4:]] > 1 {
			return false
		}
	}
	for _, e := range history[0] {
		stays := !slices.ContainsFunc(history, func(h []string) bool {
			return !slices.ContainsFunc(h, func(o string) bool { return o[4:] == e[4:] })
		})
		if stays && seen[e[4:]] == 0 {
			return false
		}
	}
	return true
}

func TestEqualSeedsGiveEqualCrashes(t *testing.T) {
	d := New()
	for i := range 20 {
		f, _ := d.OpenFile(fmt.Sprintf("/f%d", i), disk.Write|disk.Create, 0o644)
		f.WriteAt(bytes.Repeat([]byte{1}, 5000), 0)
		f.Datasync()
		f.WriteAt(bytes.Repeat([]byte{2}, 7000), 1000)
	}
	dump := func() string {
		image := d.Crash(rand.New(rand.NewPCG(5, 5)), Torn)
		names, _ := image.ReadDir("/")
		s := fmt.Sprint(names)
		for _, n := range names {
			content, _ := readFile(image, n)
			s += string(content)
		}
		return s
	}
	if first := dump(); first != dump() {
		t.Error("two crashes with one seed differ")
	}
}

// Images taken while others write and sync hold at least what was acknowledged
// before they were taken, and do not change afterwards.
func TestImagesDuringIO(t *testing.T) {
	d := New()
	const writers = 4
	var acked [writers]atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range writers {
		f, err := d.OpenFile(fmt.Sprintf("/f%d", w), disk.Write|disk.Create, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		f.Prewrite(0, 3*chunkSize)
		wg.Go(func() {
			var sector [sectorSize]byte
			for n := uint64(1); !stop.Load(); n++ {
				binary.LittleEndian.PutUint64(sector[:], n)
				f.WritevAt([][]byte{sector[:100], sector[100:]}, int64(n%90)*sectorSize)
				f.WriteAt(sector[:], 90*sectorSize)
				f.Datasync()
				acked[w].Store(n)
			}
		})
	}
	d.SyncDir("/")
	for seed := range uint64(30) {
		var least [writers]uint64
		for w := range writers {
			least[w] = acked[w].Load()
		}
		image := d.Crash(rand.New(rand.NewPCG(seed, 3)), Mixed)
		for w := range writers {
			name := fmt.Sprintf("/f%d", w)
			one, err := readFile(image, name)
			if err != nil {
				t.Fatal(err)
			}
			if n := binary.LittleEndian.Uint64(one[90*sectorSize:]); n < least[w] {
				t.Errorf("image holds %d, %d was acknowledged", n, least[w])
			}
			if two, _ := readFile(image, name); !bytes.Equal(one, two) {
				t.Error("an image changed")
			}
		}
	}
	stop.Store(true)
	wg.Wait()
}

// A sector may be overwritten for ever without a sync: what is remembered is
// bounded, the synced version among it.
func TestHotSectorIsBounded(t *testing.T) {
	d := New()
	f, _ := d.OpenFile("/f", disk.Write|disk.Create, 0o644)
	d.SyncDir("/")
	write := func(n int) {
		f.WriteAt(bytes.Repeat([]byte{byte(n)}, sectorSize), 0)
	}
	write(255)
	f.Datasync()
	for n := range 200 {
		write(n)
		f.WriteAt([]byte{1}, 1000+int64(n)) // and the size grows
	}
	file := f.(*File).node.file
	if depth := file.chunks[0].history.old[0].depth; depth != maxVersions {
		t.Errorf("%d versions remembered", depth)
	}
	if len(file.sizes) > maxSizes {
		t.Errorf("%d sizes remembered", len(file.sizes))
	}
	seen := map[byte]bool{}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		got, _ := readFile(d.Crash(rng, Options{}), "/f")
		seen[got[0]] = true
	}
	if !seen[255] || !seen[199] || !seen[198] || len(seen) != maxVersions+1 {
		t.Errorf("power cuts leave %d versions: %v", len(seen), seen)
	}
	if got, _ := readFile(d.Crash(rng, LoseAll), "/f"); got[0] != 255 || len(got) != sectorSize {
		t.Error("the synced version is gone")
	}
}

// BenchmarkCrashRound is what a crash test of a volume does: 64 MiB in writes
// of 4 KiB to prewritten files, a sync for every 16, a crash.
func BenchmarkCrashRound(b *testing.B) {
	page := bytes.Repeat([]byte{7}, 4096)
	b.SetBytes(64 << 20)
	for b.Loop() {
		d := New()
		for i := range 4 {
			f, _ := d.OpenFile(fmt.Sprintf("/f%d", i), disk.Write|disk.Create, 0o644)
			f.Prewrite(0, 16<<20)
			for n := range int64(4096) {
				f.WriteAt(page, n*4096)
				if n%16 == 0 {
					f.Datasync()
				}
			}
		}
		d.Crash(rand.New(rand.NewPCG(1, 1)), Mixed)
	}
}

func BenchmarkOverwriteSync(b *testing.B) {
	d := New()
	f, _ := d.OpenFile("/f", disk.Write|disk.Create, 0o644)
	page := bytes.Repeat([]byte{7}, 4096)
	b.SetBytes(4096)
	for b.Loop() {
		f.WriteAt(page, 0)
		f.Datasync()
	}
}
