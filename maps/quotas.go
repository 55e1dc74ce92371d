package maps

import (
	"fmt"

	"github.com/sixpn/sixpn/bpf"
)

// freeQuotas removes quotas that nobody wants and nobody used for a grace period.
// One that live flows still count in must stay: they count down when they end, and a
// new one under the same key would then count below zero.
func (p *pass) freeQuotas() error {
	if p.want.AddOnly {
		return nil
	}
	wanted := p.wantedQuotas()
	for key := range p.unused {
		if _, ok := p.quotas.have[key]; !ok {
			delete(p.unused, key)
		}
	}
	for key, quota := range p.quotas.have {
		if _, ok := wanted[key]; ok {
			delete(p.unused, key)
			continue
		}
		if quota.Used != 0 {
			delete(p.unused, key)
			p.inUse++
			continue
		}
		since, ok := p.unused[key]
		if !ok {
			p.unused[key] = p.now
			continue
		}
		if p.now.Sub(since) < p.options.Grace {
			continue
		}
		if err := p.quotas.remove(p.writer, quotaName(key), key); err != nil {
			return err
		}
		delete(p.unused, key)
	}
	return nil
}

func (p *pass) wantedQuotas() map[bpf.RouterMachineKey]Quota {
	quotas := map[bpf.RouterMachineKey]Quota{}
	for _, quota := range p.want.Quotas {
		quotas[machineKey(quota.Network, quota.Machine)] = quota
	}
	return quotas
}

// putQuotas adds quotas and changes limits; what is used is the kernel's to count.
// Between reading it and writing it back with a new limit a flow may begin or end
// uncounted, so a limit should change only where an operator changes the setting.
func (p *pass) putQuotas() error {
	for key, quota := range p.wantedQuotas() {
		have, ok := p.quotas.have[key]
		if ok && have.Limit == quota.Limit {
			continue
		}
		if ok {
			if err := p.maps.Quotas.Lookup(key, &have); err != nil {
				return fmt.Errorf("maps: read %s: %w", quotaName(key), err)
			}
		}
		have.Limit = quota.Limit
		if err := p.tolerate(p.quotas.put(p.writer, quotaName(key), key, have)); err != nil {
			return err
		}
	}
	return nil
}

func quotaName(key bpf.RouterMachineKey) string {
	if key.Machine == 0 {
		return fmt.Sprintf("the quota of network %d", key.Network)
	}
	return fmt.Sprintf("the quota of machine %d of network %d", key.Machine, key.Network)
}
