package registry

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"openvstorage/internal/format"
)

// Version 1 of what is in the store. These bytes never change.
func TestGoldenValues(t *testing.T) {
	for i, golden := range []string{
		// version, flags; epoch; seconds, nanoseconds; parent; owner; name
		"0101" + "0300000000000000" + "3f8ac66700000000" + "59000000" + "01000000000040008000000000000001" + "06686f73742d31" + "636c6f6e65",
		"0100" + "0000000000000000" + "3f8ac66700000000" + "59000000" + "00000000000000000000000000000000" + "00" + "766d2f726f6f74",
	} {
		r := sample()[i]
		b, err := hex.DecodeString(golden)
		must(t, err)
		if got := encodeValue(&r); !bytes.Equal(got, b) {
			t.Errorf("record %d is %x", i, got)
		}
		if got, err := decodeValue(r.ID, b); err != nil || got != r {
			t.Errorf("record %d: %+v, %v", i, got, err)
		}
		b[0] = 2
		if _, err := decodeValue(r.ID, b); !errors.Is(err, format.ErrNewer) {
			t.Error(err)
		}
	}
	m := meta{state: imported, records: 3, generation: 9}
	if got := hex.EncodeToString(m.encode()); got != "0102"+"03000000"+"0900000000000000" {
		t.Errorf("meta is %s", got)
	}
	b := m.encode()
	b[0] = 2
	if _, err := decodeMeta(b); !errors.Is(err, format.ErrNewer) {
		t.Error(err)
	}
}

func FuzzValue(f *testing.F) {
	for _, r := range sample() {
		f.Add(encodeValue(&r))
	}
	f.Add(meta{state: importing, generation: 4}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeValue(id(1), b)
		if err == nil && !bytes.Equal(encodeValue(&r), b) {
			t.Fatal("the record does not survive a round trip")
		}
		m, err := decodeMeta(b)
		if err == nil && b != nil && !bytes.Equal(m.encode(), b) {
			t.Fatal("the meta value does not survive a round trip")
		}
	})
}
