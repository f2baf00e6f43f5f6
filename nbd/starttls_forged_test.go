package nbd_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"openvstorage/nbd"
	"openvstorage/nbd/nbdclient"
	"openvstorage/nbd/nbdtest"
)

// forger writes records of TLS that crypto/tls would not.
type forger struct {
	conn net.Conn
	aead cipher.AEAD
	iv   []byte
	seq  uint64
}

func newForger(t *testing.T, conn net.Conn, secret []byte, suite uint16) *forger {
	t.Helper()
	if suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("cipher suite %#x", suite)
	}
	expand := func(label string, n int) []byte {
		label = "tls13 " + label
		info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(label)))
		info = append(append(info, label...), 0)
		b, err := hkdf.Expand(sha256.New, secret, string(info), n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	block, err := aes.NewCipher(expand("key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return &forger{conn: conn, aead: aead, iv: expand("iv", 12)}
}

// write sends one record.
func (f *forger) write(typ byte, p []byte) error {
	plain := append(append([]byte{}, p...), typ)
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(plain)+f.aead.Overhead()))
	nonce := append([]byte{}, f.iv...)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^f.seq)
	f.seq++
	_, err := f.conn.Write(f.aead.Seal(head, nonce, plain, head))
	return err
}

// forge is a client that has opened the disk, and then writes records of its own.
func (s *secured) forge(t *testing.T) *forger {
	t.Helper()
	conn, h := s.raw()
	var log strings.Builder
	config := s.ca.ClientTLS(s.ca.Client("vm"))
	config.KeyLogWriter = &log
	tc, err := h.StartTLS(conn, config)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(log.String(), "CLIENT_TRAFFIC_SECRET_0 ")
	line, _, _ := strings.Cut(rest, "\n")
	secret, err := hex.DecodeString(line[strings.LastIndexByte(line, ' ')+1:])
	if err != nil {
		t.Fatal(err)
	}
	f := newForger(t, conn, secret, tc.ConnectionState().CipherSuite)
	payload := nbdclient.InfoPayload("disk")
	option := binary.BigEndian.AppendUint64(nil, nbd.OptionMagic)
	option = binary.BigEndian.AppendUint32(option, uint32(nbd.OptGo))
	option = binary.BigEndian.AppendUint32(option, uint32(len(payload)))
	if err := f.write(23, append(option, payload...)); err != nil {
		t.Fatal(err)
	}
	for {
		r, err := h.Receive()
		if err != nil || r.Type>>31 != 0 {
			t.Fatalf("%+v %v", r, err)
		}
		if r.Type == nbd.RepAck {
			return f
		}
	}
}

// After the handshake of TLS a client has nothing to say in it but that it takes a new key. The
// start of a longer message is memory that crypto/tls keeps as long as the client likes.
func TestLongMessagesAfterTheHandshakeOfTLSAreNotKept(t *testing.T) {
	s := serveTLS(t, one(nbdtest.NewMemory(testSize)), nbd.TLSRequired, nbd.Limits{}, nil)
	f := s.forge(t)
	await(t, "the client is there", func() bool { return len(s.Connections()) == 1 })
	message := append([]byte{11, 3, 0xff, 0xf0}, make([]byte, 48<<10)...) // a certificate of 256 KiB
	for ; len(message) > 0; message = message[min(len(message), 16<<10):] {
		if f.write(22, message[:min(len(message), 16<<10)]) != nil {
			break // the server has ended it
		}
	}
	if err := f.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	ends(t, f.conn)
	await(t, "the client is gone", func() bool { return len(s.Connections()) == 0 })
}

// A client of TLS must take its replies as fast as any other: it has no time of its own for each
// record.
func TestSlowReadersAreSentAwayWithTLSToo(t *testing.T) {
	for _, mode := range []nbd.TLSMode{nbd.TLSOff, nbd.TLSRequired} {
		t.Run(mode.String(), func(t *testing.T) {
			s := serveTLS(t, one(nbdtest.NewMemory(32<<20)), mode, nbd.Limits{StallTimeout: time.Second, Rate: 24 << 20}, nil)
			conn, h := s.raw()
			var rw io.ReadWriter = conn
			if mode == nbd.TLSRequired {
				tc, err := h.StartTLS(conn, s.ca.ClientTLS(s.ca.Client("vm")))
				if err != nil {
					t.Fatal(err)
				}
				rw = tc
			}
			if _, err := h.Go("disk"); err != nil {
				t.Fatal(err)
			}
			await(t, "the client is there", func() bool { return len(s.Connections()) == 1 })
			if _, err := rw.Write(nbd.AppendRequest(nil, nbd.Request{Type: nbd.CmdRead, Length: 32 << 20})); err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 64<<10)
			for range 300 { // 6 MiB a second, for 3 s
				time.Sleep(10 * time.Millisecond)
				if len(s.Connections()) == 0 {
					return
				}
				_, _ = io.ReadFull(rw, p)
			}
			t.Error("a client of 6 MiB a second is served on, where 24 is the least")
		})
	}
}
