package sim

import "openvstorage/arakoon"

func (g *group) join(m *machine, l *life, o *arakoon.Options) {
	if g.plan.members > 1 {
		o.Transport = port{g.net, l}
	}
}
func (g *group) grow(int)                      {}
func (g *group) settle()                       {}
func (g *group) hint(n *arakoon.Node) *machine { return nil }

const several = false

func (g *group) shrink()             {}
func (g *group) replace(*machine)    {}
func (g *group) transfer(m *machine) {}
