package dashboards

import (
	"encoding/json"
	"fmt"
)

// schemaVersion is that of Grafana 11's dashboards; newer ones migrate it when they load.
const schemaVersion = 39

// The grid of a dashboard is 24 wide.
const (
	gridWidth  = 24
	wide, high = 12, 8 // of a picture
	statWide   = 6
	statHigh   = 4
)

type object = map[string]any

var dataSource = object{"type": "prometheus", "uid": "${datasource}"}

// JSON is the dashboard's file.
func (d Dashboard) JSON() ([]byte, error) {
	variables := []any{
		object{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
		variable("host", "Host", "label_values(sixpn_build_info, instance)"),
	}
	for _, v := range d.Variables {
		variables = append(variables, variable(v.Label, v.Label, fmt.Sprintf(`label_values(%s{instance=~"$host"}, %s)`, v.Metric, v.Label)))
	}
	content, err := json.MarshalIndent(object{
		"uid":           "sixpn-" + d.Name,
		"title":         d.Title,
		"description":   d.Description,
		"tags":          []string{"sixpn"},
		"schemaVersion": schemaVersion,
		"editable":      true,
		"graphTooltip":  1, // the same time is marked in all panels
		"refresh":       "30s",
		"time":          object{"from": "now-3h", "to": "now"},
		"timezone":      "browser",
		"templating":    object{"list": variables},
		"annotations":   object{"list": []any{}},
		"links":         []any{object{"title": "sixpn", "type": "dashboards", "tags": []string{"sixpn"}, "asDropdown": true, "includeVars": true, "keepTime": true}},
		"panels":        d.panels(),
	}, "", "  ")
	return append(content, '\n'), err
}

func variable(name, label, query string) object {
	return object{
		"name": name, "label": label, "type": "query", "datasource": dataSource,
		"query":   object{"query": query, "refId": name},
		"refresh": 2, // whenever the time changes
		"multi":   true, "includeAll": true, "allValue": ".*", "sort": 1,
		"current": object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}},
	}
}

// panels puts the panels side by side, row by row.
func (d Dashboard) panels() (list []any) {
	id, y := 0, 0
	add := func(panel object, x, y, w, h int) {
		id++
		panel["id"] = id
		panel["gridPos"] = object{"x": x, "y": y, "w": w, "h": h}
		list = append(list, panel)
	}
	for _, row := range d.Rows {
		add(object{"type": "row", "title": row.Title, "collapsed": false, "panels": []any{}}, 0, y, gridWidth, 1)
		y++
		x, height := 0, 0
		for _, p := range row.Panels {
			w, h := wide, high
			if p.Kind == Stat {
				w, h = statWide, statHigh
			}
			if x+w > gridWidth {
				x, y = 0, y+height
			}
			add(p.object(), x, y, w, h)
			x, height = x+w, h
		}
		y += height
	}
	return list
}

func (p Panel) object() object {
	kind := p.Kind
	if kind == "" {
		kind = TimeSeries
	}
	defaults := object{"unit": p.Unit, "min": 0}
	options := object{}
	if kind == TimeSeries {
		defaults["custom"] = object{"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false}
		options["legend"] = object{"displayMode": "list", "placement": "bottom", "showLegend": true}
		options["tooltip"] = object{"mode": "multi", "sort": "desc"}
	} else {
		options["reduceOptions"] = object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}
		options["colorMode"] = "none"
	}
	var targets []any
	for i, q := range p.Queries {
		target := object{"refId": string(rune('A' + i)), "datasource": dataSource, "expr": q.Expr, "instant": kind == Stat, "range": kind != Stat}
		if q.Legend != "" {
			target["legendFormat"] = q.Legend
		}
		targets = append(targets, target)
	}
	return object{
		"type": kind, "title": p.Title, "description": p.Description, "datasource": dataSource,
		"fieldConfig": object{"defaults": defaults, "overrides": []any{}},
		"options":     options, "targets": targets,
	}
}
