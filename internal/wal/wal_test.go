package wal

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

const incarnation = 0x1122334455667788

func sample() []byte {
	var b []byte
	for i := range uint64(5) {
		b = Append(b, incarnation, Record{Seq: 10 + 2*i, Durable: 9 + i, Kind: 1 + uint16(i), Flags: uint16(i % 2), Body: bytes.Repeat([]byte{byte(i)}, int(i)*5)}, []byte("tail"))
	}
	return b
}

func scan(b []byte) (n int, end int64, err error) {
	end, err = Scan(b, incarnation, func(int64, Record) error { n++; return nil })
	return n, end, err
}

func TestRoundTrip(t *testing.T) {
	b := sample()
	i := uint64(0)
	end, err := Scan(append(b, make([]byte, 100)...), incarnation, func(off int64, r Record) error {
		body := append(bytes.Repeat([]byte{byte(i)}, int(i)*5), "tail"...)
		if off%Align != 0 || r.Seq != 10+2*i || r.Durable != 9+i || r.Kind != 1+uint16(i) || r.Flags != uint16(i%2) || !bytes.Equal(r.Body, body) {
			return fmt.Errorf("record %d at %d: %+v", i, off, r)
		}
		i++
		return nil
	})
	if err != nil || i != 5 || end != int64(len(b)) {
		t.Fatalf("%d records up to %d: %v", i, end, err)
	}
	head := AppendHead(nil, incarnation, Record{Seq: 10, Durable: 9, Kind: 1, Body: []byte("tail")})
	if !bytes.Equal(head, b[:HeadSize]) {
		t.Error("a head by itself is another")
	}
}

// Every bit counts, and so do the incarnation and the order.
func TestDamage(t *testing.T) {
	b := sample()
	for i := range b {
		for bit := range 8 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			if n, _, err := scan(c); !errors.Is(err, ErrCorrupt) || n == 5 {
				t.Fatalf("bit %d of byte %d: %d records, %v", bit, i, n, err)
			}
		}
	}
	if _, err := Scan(b, incarnation+1, func(int64, Record) error { return nil }); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another incarnation: %v", err)
	}
	if n, _, err := scan(append(bytes.Clone(b), b...)); n != 5 || !errors.Is(err, ErrCorrupt) {
		t.Errorf("seq falls: %d records, %v", n, err)
	}
	first := Size(4)
	for cut := 1; cut < first; cut++ {
		n, end, err := scan(b[:cut])
		if n != 0 || end != 0 || (err != nil) != (cut >= HeadSize) {
			t.Fatalf("cut at %d: %d records up to %d, %v", cut, n, end, err)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add(sample())
	f.Add(make([]byte, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		end, err := Scan(b, incarnation, func(off int64, r Record) error {
			if off != int64(len(again)) {
				t.Fatalf("record at %d, not %d", off, len(again))
			}
			again = Append(again, incarnation, r)
			return nil
		})
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if !bytes.Equal(again, b[:end]) {
			t.Fatal("what was read writes otherwise")
		}
	})
}
