// Package metrics serves what a running `ovs up` counts, in the format of Prometheus. It
// has the collectors of those parts that do not bring any themselves.
package metrics

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Server answers GET /metrics.
type Server struct {
	http  *http.Server
	conns *scrapers
}

// Serve answers those who connect to l until the server is closed.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(s.conns.listen(l)) }

// Shutdown takes no more requests, and waits for those under way until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close ends the server at once.
func (s *Server) Close() error { return s.http.Close() }

// NewServer returns a server of what the collectors, the process and the Go runtime
// count. It takes at most most connections at once.
func NewServer(list []prometheus.Collector, most int, logger *slog.Logger) (*Server, error) {
	registry := prometheus.NewRegistry()
	for _, c := range append(list, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})) {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	}))
	conns := &scrapers{max: most, conns: map[net.Conn]scraper{}}
	return &Server{conns: conns, http: &http.Server{
		Handler:           mux,
		ConnState:         conns.state,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}}, nil
}
