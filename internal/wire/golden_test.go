package wire

import (
	"encoding/hex"
	"testing"

	"github.com/google/uuid"
)

// Neighbouring releases speak these bytes. They never change.
func TestBytesNeverChange(t *testing.T) {
	b := make([]byte, headSize)
	(&head{kind: kindRequest, flags: flagSummed, priority: Maintenance, op: 0x0102, id: 0x0304050607080910, word: 1500, header: 17, body: 70000, piece: 65536, pieceSum: 0xaabbccdd, headerSum: 0x11223344}).put(b)
	if got := hex.EncodeToString(b); got != goldenFrame {
		t.Errorf("frame: %s", got)
	}
	p := preface{kind: hello, newest: 1, oldest: 1, life: 5, minLevel: 2, text: "ovs-kv\x00abm", windows: [windows]uint32{1, 2, 3, 4}, slots: [priorities]uint32{5, 6}, bodyMax: 7, code: 8,
		id: Identity{Cluster: testCluster, Host: uuid.MustParse("01020304-0506-0708-090a-0b0c0d0e0f10"), Generation: 9, Level: 3}}
	if got := hex.EncodeToString(p.append(nil)); got != goldenPreface {
		t.Errorf("preface: %s", got)
	}
}

const (
	goldenFrame   = "4f570101020101011009080706050403dc050000110000007011010000000100ddccbbaa443322110000000033a304a2"
	goldenPreface = "4f565357495245310100010001000a00111111112222333344445555555555550102030405060708090a0b0c0d0e0f1005000000000000000900000000000000030000000200000001000000020000000300000004000000050000000600000007000000080000000000000000000000000000000000000013bb72603bb40b2a6f76732d6b760061626d"
)
