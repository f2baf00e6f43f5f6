// Package proxycmd is the commands and flags about proxies of the backend.
package proxycmd

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/alba/proxy"
	"openvstorage/cmd/ovs/clustercmd"
	"openvstorage/host"
	"openvstorage/internal/size"
)

// Command is `ovs alba proxy`.
func Command(t clustercmd.Tools) *cobra.Command {
	return t.Group("proxy", "the backend as other processes use it", stats(t))
}

// proxyReport is what `ovs alba proxy stats` prints.
type proxyReport struct {
	Store      string           `json:"store"`
	Namespaces []proxyNamespace `json:"namespaces"`
}

// proxyNamespace is what other processes did with one namespace since the proxy was started.
type proxyNamespace struct {
	Namespace string     `json:"namespace"` // "" stands for those used longest ago, and for calls about none
	Read      proxyCalls `json:"read"`
	Write     proxyCalls `json:"write"`
	Other     proxyCalls `json:"other"`
}

// proxyCalls are calls of one sort.
type proxyCalls struct {
	Calls  uint64  `json:"calls"`
	Errors uint64  `json:"errors"`
	Bytes  uint64  `json:"bytes"`
	Mean   float64 `json:"mean_seconds"`
	P99    float64 `json:"p99_seconds"` // 99 of 100 calls took less
}

func stats(t clustercmd.Tools) *cobra.Command {
	return &cobra.Command{
		Use:   "stats SOCKET",
		Short: "what other processes read and put, by namespace",
		Long: `ovs alba proxy stats asks the proxy on a socket, which is that of
'ovs up --proxy SOCKET', what other processes did with the backend since it was
started: calls, errors, bytes and times of each namespace. Of more than 1024
namespaces those that were used longest ago are one line, without a name.`,
		Args: t.Wants("SOCKET"),
		RunE: func(c *cobra.Command, args []string) error {
			socket, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			id, list, err := host.ProxyStats(c.Context(), socket)
			if err != nil {
				return fmt.Errorf("proxy on %s: %w", socket, err)
			}
			report := proxyReport{Store: id.String(), Namespaces: make([]proxyNamespace, len(list))}
			for i := range list {
				s := &list[i]
				report.Namespaces[i] = proxyNamespace{s.Namespace, callsOf(&s.Read), callsOf(&s.Write), callsOf(&s.Other)}
			}
			return t.Print(report, func(w io.Writer) { writeProxy(w, report.Namespaces) })
		},
	}
}

func callsOf(c *proxy.Counts) proxyCalls {
	p := proxyCalls{Calls: c.Calls, Errors: c.Errors, Bytes: c.Bytes, P99: c.Quantile(0.99).Seconds()}
	if c.Calls > 0 {
		p.Mean = float64(c.Micros) / float64(c.Calls) / 1e6
	}
	return p
}

func writeProxy(w io.Writer, list []proxyNamespace) {
	fmt.Fprintln(w, "NAMESPACE\tREADS\tREAD\tMEAN\tP99\tPUTS\tPUT\tMEAN\tP99\tOTHERS\tERRORS")
	for _, n := range list {
		name := n.Namespace
		if name == proxy.Others {
			name = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\n", name, n.Read.cells(), n.Write.cells(), n.Other.Calls, n.Read.Errors+n.Write.Errors+n.Other.Errors)
	}
}

func (p proxyCalls) cells() string {
	seconds := func(s float64) time.Duration {
		return time.Duration(s * float64(time.Second)).Round(time.Microsecond)
	}
	return fmt.Sprintf("%d\t%s\t%v\t%v", p.Calls, size.Bytes(p.Bytes).Human(), seconds(p.Mean), seconds(p.P99))
}
