package fragmentcache

import (
	"fmt"
	"path"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
)

const sampleIncarnation = 0x1122334455667788

func sampleEntries() []entry {
	return []entry{
		{fragment: fragmentOf(key(0x0102030405060708, 4)), first: 8, at: 1, n: 2},
		{fragment: fragmentOf(key(0x1112131415161718, 0)), first: 1048575, at: 3, n: 1},
	}
}

// sample is a sealed segment of three blocks.
func sample() []byte {
	b := header(5, sampleIncarnation)
	b = append(b, make([]byte, 3*blockSize)...)
	for i := range 3 * blockSize {
		b[blockSize+i] = byte(0xa0 + i/blockSize)
	}
	return appendIndex(b, sampleEntries(), []uint32{0x01020304, 0x11121314, 0x21222324}, sampleIncarnation)
}

func TestGolden(t *testing.T) {
	f := func(n int, name string) golden.Field { return golden.Field{Size: n, Name: name} }
	fields := []golden.Field{f(8, "magic"), f(2, "kind"), f(2, "version"), f(2, "minimum reader"), f(2, "zero"), f(4, "compatible"), f(4, "incompatible"),
		f(16, "owner"), f(8, "number"), f(8, "incarnation"), f(4, "zero"), f(4, "CRC"), f(blockSize-format.HeaderSize, "zero"),
		f(blockSize, "block 1"), f(blockSize, "block 2"), f(blockSize, "block 3")}
	for range 2 {
		fields = append(fields, f(16, "object"), f(4, "chunk"), f(4, "first block in the fragment"), f(4, "first block in the segment"),
			f(1, "fragment"), f(1, "blocks"), f(2, "zero"))
	}
	fields = append(fields, f(12, "checksums"), f(8, "magic"), f(4, "blocks"), f(4, "entries"), f(8, "zero"), f(4, "CRC of entries and checksums"), f(4, "CRC"))
	b := golden.Check(t, "testdata/segment-v1.hex", "sealed segment with two extents", sample(), fields...)

	foot, index, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	var entries []entry
	for i := range foot.entries {
		e, err := foot.decodeEntry(index, i)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if got, want := fmt.Sprint(entries), fmt.Sprint(sampleEntries()); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got := fmt.Sprintf("%08x", foot.decodeCRCs(nil, index)); got != "[01020304 11121314 21222324]" {
		t.Error(got)
	}
}

// parse reads a segment's bytes as a start does.
func parse(b []byte) (footer, []byte, error) {
	fsys := crashdisk.New()
	if err := writeFile(fsys, segmentName(dir, 5), b); err != nil {
		return footer{}, nil, err
	}
	s, err := openSegment(fsys, dir, 5)
	if err != nil {
		return footer{}, nil, err
	}
	defer s.release()
	return s.readIndex(nil)
}

func writeFile(fsys disk.FS, name string, b []byte) error {
	if err := fsys.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := fsys.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, 0)
	return err
}

func TestDamagedIndex(t *testing.T) {
	good := sample()
	for i := range good {
		if i >= format.HeaderSize && i < 4*blockSize {
			continue // blocks, of which the caller's check tells
		}
		b := append([]byte(nil), good...)
		b[i] ^= 0x10
		if _, _, err := parse(b); err == nil {
			t.Errorf("byte %d was changed and nobody noticed", i)
		}
	}
	for _, n := range []int{0, 10, format.HeaderSize, blockSize, 4 * blockSize, len(good) - footerSize, len(good) - 1} {
		if _, _, err := parse(good[:n]); err == nil {
			t.Errorf("it was cut at %d and nobody noticed", n)
		}
	}
}

func FuzzIndex(f *testing.F) {
	b := sample()[4*blockSize:]
	f.Add(b[:len(b)-footerSize], uint32(4), uint32(2))
	f.Add([]byte{}, uint32(1), uint32(0))
	f.Fuzz(func(t *testing.T, index []byte, blocks, entries uint32) {
		foot := appendFooter(nil, index, blocks, entries, sampleIncarnation) // whose CRCs hold
		size := int64(blocks)*blockSize + int64(len(index)) + footerSize
		x, err := decodeFooter(foot, size, sampleIncarnation)
		if err != nil {
			return
		}
		if err := x.checkIndex(index, sampleIncarnation); err != nil {
			t.Fatal(err)
		}
		for i := range x.entries {
			e, err := x.decodeEntry(index, i)
			if err == nil && (e.n < 1 || e.n > runMax || e.at < 1 || e.at+e.n > blocks) {
				t.Fatalf("%+v of %d blocks", e, blocks)
			}
		}
		if crcs := x.decodeCRCs(nil, index); len(crcs) != int(blocks)-1 {
			t.Fatalf("%d checksums of %d blocks", len(crcs), blocks)
		}
	})
}

func FuzzFooter(f *testing.F) {
	b := sample()
	f.Add(b[len(b)-footerSize:], int64(len(b)))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		x, err := decodeFooter(b, size, sampleIncarnation)
		if err == nil && segmentSize(x.blocks, x.entries) != size {
			t.Fatalf("%+v in %d bytes", x, size)
		}
	})
}
