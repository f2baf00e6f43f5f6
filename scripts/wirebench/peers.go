package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"

	"openvstorage/internal/wire"
)

// certificates makes one for both sides.
func certificates() (server, client *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "host"}, DNSNames: []string{"host"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	own := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return &tls.Config{Certificates: own, MinVersion: tls.VersionTLS13}, &tls.Config{RootCAs: pool, ServerName: "host", MinVersion: tls.VersionTLS13}, nil
}

// startBare is what a socket can do: one request at a time, of a length that both know.
func startBare(server, client *tls.Config) (caller, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	size := make(chan int, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if server != nil {
			c = tls.Server(c, server)
		}
		b := make([]byte, <-size)
		for {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	if client != nil {
		c = tls.Client(c, client)
	}
	told := false
	var back []byte
	return func(body []byte) error {
		if !told {
			size <- len(body)
			told, back = true, make([]byte, len(body))
		}
		if _, err := c.Write(body); err != nil {
			return err
		}
		_, err := io.ReadFull(c, back)
		return err
	}, func() { c.Close(); l.Close() }, nil
}

func startWire(s, c *tls.Config) (caller, func(), error) { return onWire(s, c, nil) }
func startWireInline(s, c *tls.Config) (caller, func(), error) {
	return onWire(s, c, func(uint16) bool { return true })
}

func onWire(server, client *tls.Config, inline func(uint16) bool) (caller, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	s, err := wire.NewServer(wire.ServerOptions{TLS: server, Identity: func() wire.Identity { return wire.Identity{} },
		Services: map[string]*wire.Service{"ovs-osd": {Inline: inline, Handler: wire.HandlerFunc(func(_ context.Context, r *wire.Incoming) wire.Answer {
			return wire.Answer{Body: r.Take()}
		})}}})
	if err != nil {
		return nil, nil, err
	}
	go func() { _ = s.Serve(l) }()
	c, err := wire.Dial(context.Background(), wire.DialOptions{Network: "tcp", Address: l.Addr().String(), TLS: client, Service: "ovs-osd"})
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	return func(body []byte) error {
		r, err := c.Call(ctx, wire.Request{Op: 1, Body: wire.Wrap(nil, body)})
		if err != nil {
			return err
		}
		r.Release()
		return nil
	}, func() { c.Close(); _ = s.Close(ctx) }, nil
}

// raw is gRPC's codec for bodies without a copy, which is the best that it can do.
type raw struct{}

func (raw) Name() string                             { return "raw" }
func (raw) Marshal(v any) (mem.BufferSlice, error)   { return *v.(*mem.BufferSlice), nil }
func (raw) Unmarshal(d mem.BufferSlice, v any) error { d.Ref(); *v.(*mem.BufferSlice) = d; return nil }

func startGRPC(server, client *tls.Config) (caller, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	so := []grpc.ServerOption{grpc.ForceServerCodecV2(raw{}), grpc.MaxRecvMsgSize(64 << 20), grpc.InitialWindowSize(8 << 20), grpc.InitialConnWindowSize(64 << 20)}
	co := []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(64<<20)), grpc.WithInitialWindowSize(8 << 20), grpc.WithInitialConnWindowSize(64 << 20)}
	if server != nil {
		so, co = append(so, grpc.Creds(credentials.NewTLS(server))), append(co, grpc.WithTransportCredentials(credentials.NewTLS(client)))
	} else {
		co = append(co, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	s := grpc.NewServer(so...)
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Echo",
		Handler: func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in mem.BufferSlice
			if err := dec(&in); err != nil {
				return nil, err
			}
			return &in, nil
		}}}}, nil)
	go func() { _ = s.Serve(l) }()
	c, err := grpc.NewClient("passthrough:///"+l.Addr().String(), co...)
	if err != nil {
		return nil, nil, err
	}
	return func(body []byte) error {
		in := mem.BufferSlice{mem.SliceBuffer(body)}
		var out mem.BufferSlice
		err := c.Invoke(context.Background(), "/echo/Echo", &in, &out)
		out.Free()
		return err
	}, func() { c.Close(); s.Stop() }, nil
}

func startHTTP2(server, client *tls.Config) (caller, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	p := new(http.Protocols)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: p, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(b)
	})}
	t := &http.Transport{Protocols: p, TLSClientConfig: client, HTTP2: &http.HTTP2Config{}}
	url := "http://" + l.Addr().String() + "/"
	if server != nil {
		s.TLSConfig = server.Clone()
		url = fmt.Sprintf("https://%v/", l.Addr())
		go func() { _ = s.ServeTLS(l, "", "") }()
	} else {
		go func() { _ = s.Serve(l) }()
	}
	h := &http.Client{Transport: t}
	return func(body []byte) error {
		r, err := h.Post(url, "application/octet-stream", bytes.NewReader(body))
		if err != nil {
			return err
		}
		defer r.Body.Close()
		_, err = io.Copy(io.Discard, r.Body)
		return err
	}, func() { t.CloseIdleConnections(); s.Close() }, nil
}
