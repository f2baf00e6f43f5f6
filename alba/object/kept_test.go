package object_test

import (
	"bytes"
	"errors"
	"testing"

	"openvstorage/alba/object"
	"openvstorage/alba/preset"
	"openvstorage/backend"
)

// TestPartsOfOneBlock: a block that is read in parts is unpacked once, for as long
// as the opener is at the same object; and never is one taken for another.
func TestPartsOfOneBlock(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		text := func(of string) []byte { return bytes.Repeat([]byte(of), 300<<10/len(of)) }
		one := split(t, text("one block of the first "), testPreset(preset.CompressionS2, sealed), params(2, 1))
		q := params(2, 1)
		q.Object = oid(9)
		two := split(t, text("and of another, object "), testPreset(preset.CompressionS2, sealed), q)
		key := master
		if !sealed {
			key = nil
		}
		o := one.opener(t)
		const part = 1 << 10
		for off := 0; off+part <= len(one.data); off += part {
			for _, s := range []stored{one, two, one} {
				if err := o.Reset(s.m, key); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if got := s.read(t, o, uint64(off), part, nil); !bytes.Equal(got, s.data[off:off+part]) {
						t.Fatalf("sealed %v: other bytes at %d", sealed, off)
					}
				}
			}
		}

		open := func(off uint64, damaged bool) ([]byte, error) {
			pieces, err := object.Pieces(nil, one.m, off, part)
			if err != nil {
				t.Fatal(err)
			}
			var table *object.Table
			if span, ok := object.TableSpan(one.m, pieces[0].Chunk); ok {
				buf, _ := one.fetch(t, span, nil)
				if table, err = o.Table(pieces[0].Chunk, buf); err != nil {
					t.Fatal(err)
				}
			}
			span, err := object.Locate(one.m, pieces[0], table)
			if err != nil {
				t.Fatal(err)
			}
			buf, _ := one.fetch(t, span, nil)
			if buf = bytes.Clone(buf); damaged {
				clear(buf)
			}
			dst := make([]byte, part)
			return dst, o.Open(dst, span, table, buf)
		}
		if err := o.Reset(one.m, key); err != nil {
			t.Fatal(err)
		}
		if _, err := open(0, false); err != nil {
			t.Fatal(err)
		}
		if got, err := open(2*part, true); err != nil || !bytes.Equal(got, one.data[2*part:3*part]) {
			t.Errorf("sealed %v: the block was unpacked again: %v", sealed, err)
		}
		const next = 16 << 10 // in another block
		if _, err := open(next, true); !errors.Is(err, backend.ErrCorrupt) {
			t.Errorf("sealed %v: a damaged block: %v", sealed, err)
		}
		if got, err := open(next, false); err != nil || !bytes.Equal(got, one.data[next:next+part]) {
			t.Errorf("sealed %v: after a damaged block: %v", sealed, err)
		}
	}
}
