package nbd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// BenchmarkTLSSend compares ways to send replies: each buffer as a record of its own, as
// net.Buffers would; all gathered in one buffer; and sendTLS, which gathers what is short.
func BenchmarkTLSSend(b *testing.B) {
	each := func(s *socket, bufs [][]byte) error {
		for _, p := range bufs {
			if err := s.writeTLS(p); err != nil {
				return err
			}
		}
		return nil
	}
	var whole []byte
	gather := func(s *socket, bufs [][]byte) error {
		whole = whole[:0]
		for _, p := range bufs {
			whole = append(whole, p...)
		}
		return s.writeTLS(whole)
	}
	for _, load := range []struct {
		name    string
		n, size int
	}{{"32x4K", 32, 4 << 10}, {"8x64K", 8, 64 << 10}, {"4x1M", 4, 1 << 20}} {
		for _, way := range []struct {
			name string
			send func(*socket, [][]byte) error
		}{{"each", each}, {"gather", gather}, {"records", (*socket).sendTLS}} {
			b.Run(load.name+"/"+way.name, func(b *testing.B) {
				s := benchSocket(b)
				head, payload := make([]byte, ChunkLen+8), make([]byte, load.size)
				vecs := make([][]byte, 2*load.n)
				b.SetBytes(int64(load.n * (len(head) + len(payload))))
				for b.Loop() {
					for i := range load.n {
						vecs[2*i], vecs[2*i+1] = head, payload
					}
					if err := way.send(s, vecs); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// benchSocket is a socket of TLS by TCP whose peer throws away what it gets, undecrypted: the
// cost of the sender is measured.
func benchSocket(b *testing.B) *socket {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if tls.Client(peer, &tls.Config{InsecureSkipVerify: true}).Handshake() == nil {
			_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{peer}, make([]byte, 1<<20))
		}
	}()
	nc, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nc.Close(); <-ended; peer.Close() })
	s := newSocket(nc, time.Minute, 1)
	var chosen *tls.Config
	config := harden(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &chosen)
	if _, err := s.secure(config, &buffers{idleMax: 1 << 20, memory: new(memory)}); err != nil {
		b.Fatal(err)
	}
	s.moving = true
	return s
}
