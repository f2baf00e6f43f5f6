package object

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

// Check values are stored: that of a key never changes.
func TestKeyCheck(t *testing.T) {
	master, backend := bytes.Repeat([]byte{0x5a}, MasterKeySize), [16]byte{15: 1}
	got, err := KeyCheck(master, backend)
	if err != nil {
		t.Fatal(err)
	}
	// HKDF-SHA256, as any implementation has it.
	if text := hex.EncodeToString(got[:]); text != "8182b0ad3c87a75e3563465defc3f3855dd483cc9b4b903723d033f5c24f15a0" {
		t.Errorf("check value %s", text)
	}
	other, err := KeyCheck(master, [16]byte{15: 2})
	if err != nil || other == got {
		t.Errorf("in another backend: %x, %v", other, err)
	}
	master[0] ^= 1
	if other, err = KeyCheck(master, backend); err != nil || other == got {
		t.Errorf("of another key: %x, %v", other, err)
	}
	if _, err := KeyCheck(master[1:], backend); !errors.Is(err, ErrKey) {
		t.Error(err)
	}
}
