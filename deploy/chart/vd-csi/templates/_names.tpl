{{/* The image of vd-csi. */}}
{{- define "vd-csi.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* Labels of every object; the argument is [context, component]. */}}
{{- define "vd-csi.labels" -}}
app.kubernetes.io/name: vd-csi
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/part-of: vd-csi
{{- end -}}

{{/* Labels by which pods are found. They never change: a Deployment's selector cannot. */}}
{{- define "vd-csi.selector" -}}
app.kubernetes.io/name: vd-csi
app.kubernetes.io/component: {{ . }}
{{- end -}}

{{/* The user of the agents and that of the controller, as the API server sees them. */}}
{{- define "vd-csi.agentUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:csi-node
{{- end -}}

{{/* What an unprivileged container may do: nothing. */}}
{{- define "vd-csi.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Values that are right each for itself and not together. */}}
{{- define "vd-csi.agree" -}}
{{- if gt (add (len .Values.kubeletDir) (len .Values.driverName)) 71 -}}
{{- fail "kubeletDir and driverName are together longer than 71 bytes: the paths of sockets below them would be too long for the kernel" -}}
{{- end -}}
{{- if hasPrefix (printf "%s/" .Values.kubeletDir) (printf "%s/" .Values.pool.directory) -}}
{{- fail "pool.directory is in kubeletDir: that folder is the kubelet's own, which clears it up" -}}
{{- end -}}
{{- $late := .Values.storageClasses.late -}}
{{- $immediate := .Values.storageClasses.immediate -}}
{{- if and $late.create $immediate.create (eq $late.name $immediate.name) -}}
{{- fail "storageClasses.late and storageClasses.immediate have one name" -}}
{{- end -}}
{{- end -}}
